"""A small API server: pods of any namespace, list with pages, watch with bookmarks and expiry, faults."""

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

LABELS = {"kvsync.dev/kv-events": "true"}


def pod(name, namespace="default", *, uid=None, ip="10.0.0.1", ready=True, restarts=0, labels=LABELS, **more):
    """A pod as the API server shows it."""
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "labels": dict(labels)}
    metadata["annotations"] = {f"kvsync.dev/{key}": value for key, value in more.pop("notes", {"model": "m"}).items()}
    if more.pop("deleting", False):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    container = {"name": "engine", "args": more.pop("args", []), "command": more.pop("command", [])}
    status = {
        "podIP": ip,
        "phase": more.pop("phase", "Running"),
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        "containerStatuses": [{"name": "engine", "restartCount": restarts}],
    }
    assert not more, more
    return {"metadata": metadata, "spec": {"containers": [container]}, "status": status}


class Sink:
    def __init__(self):
        self.specs = {}
        self.calls = []

    def add(self, spec):
        self.calls.append(("add", spec.name))
        self.specs[spec.name] = spec

    def remove(self, name):
        self.calls.append(("remove", name))
        del self.specs[name]


class FakeApiServer:
    """Only `GET .../pods`; label selectors of the form `key=value`."""

    def __init__(self):
        self.version = 100
        self.oldest = 0
        self.pods = {}
        self.requests = []
        self.status = 200
        self.watchers = []
        self.log = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                server.serve(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def api(self):
        settings = client.Configuration(host=f"http://127.0.0.1:{self.http.server_port}")
        settings.retries = False
        return client.CoreV1Api(client.ApiClient(settings))

    def close(self):
        self.end_watches()
        self.http.shutdown()
        self.http.server_close()

    # -- what happens in the cluster ----------------------------------------------------------------------------

    def apply(self, made):
        with self._lock:
            self.version += 1
            key = (made["metadata"]["namespace"], made["metadata"]["name"])
            kind = "MODIFIED" if key in self.pods else "ADDED"
            made["metadata"]["resourceVersion"] = str(self.version)
            self.pods[key] = made
            self._tell(kind, made)

    def delete(self, name, namespace="default"):
        with self._lock:
            self.version += 1
            made = json.loads(json.dumps(self.pods.pop((namespace, name))))
            made["metadata"]["resourceVersion"] = str(self.version)
            self._tell("DELETED", made)

    def bookmark(self):
        with self._lock:
            self.version += 1
            self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self.version), "namespace": None}})

    def tell_raw(self, line):
        """Send a line to every watch, whatever it is."""
        with self._lock:
            for each in self.watchers:
                each.put(line)

    def expire(self):
        """Compact the history: no watch can resume, running ones are told."""
        with self._lock:
            self.version += 1
            self.oldest = self.version
            for each in self.watchers:
                each.put({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})

    def end_watches(self):
        with self._lock:
            for each in self.watchers:
                each.put(None)

    def _tell(self, kind, made):
        self.log.append((self.version, kind, made))
        for each in self.watchers:
            each.put({"type": kind, "object": made})

    # -- what is asked ------------------------------------------------------------------------------------------

    def serve(self, handler):
        url = urlsplit(handler.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        namespace = parts[3] if len(parts) == 5 else None
        self.requests.append((namespace, query))
        if self.status != 200:
            return self._json(handler, {"kind": "Status", "code": self.status, "message": "no"}, self.status)
        if query.get("watch") in ("true", "True"):
            return self._watch(handler, namespace, query)
        return self._list(handler, namespace, query)

    def _matches(self, made, namespace, query):
        key, _, value = query.get("labelSelector", "").partition("=")
        metadata = made["metadata"]
        if namespace is not None and metadata.get("namespace") not in (namespace, None):
            return False
        return not key or "labels" not in metadata or metadata["labels"].get(key) == value

    def _list(self, handler, namespace, query):
        with self._lock:
            found = [made for _, made in sorted(self.pods.items()) if self._matches(made, namespace, query)]
            start, limit = int(query.get("continue", 0)), min(2, int(query.get("limit", 500)))
            metadata = {"resourceVersion": str(self.version)}
            if start + limit < len(found):
                metadata["continue"] = str(start + limit)
            answer = {"kind": "PodList", "metadata": metadata, "items": found[start : start + limit]}
        self._json(handler, answer, 200)

    @staticmethod
    def _json(handler, answer, status):
        data = json.dumps(answer).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def _watch(self, handler, namespace, query):
        events = queue.Queue()
        since = int(query["resourceVersion"])
        with self._lock:
            if since < self.oldest:
                events.put({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}})
            for version, kind, made in self.log:
                if version > since:
                    events.put({"type": kind, "object": made})
            self.watchers.append(events)
        handler.send_response(200)
        handler.send_header("content-type", "application/json")
        handler.send_header("transfer-encoding", "chunked")
        handler.end_headers()
        try:
            while (event := events.get()) is not None:
                raw = isinstance(event, bytes)  # sent as it is, whatever it is
                if raw or event["type"] == "ERROR" or self._matches(event["object"], namespace, query):
                    line = (event if raw else json.dumps(event).encode()) + b"\n"
                    handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    handler.wfile.flush()
            handler.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass
        finally:
            with self._lock:
                self.watchers.remove(events)
