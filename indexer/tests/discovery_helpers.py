"""Pods as the API server shows them, and the kit's API server for the tests that watch them."""

from kubernetes import client

from kvsync_testkit.cluster import FakeKube

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


class FakeApiServer(FakeKube):
    """The kit's API server in the words of these tests, which are about pods only; its lists come in pages of two."""

    def __init__(self):
        super().__init__(page_size=2)
        self.__enter__()

    def api(self):
        settings = client.Configuration(host=self.url)
        settings.retries = False
        return client.CoreV1Api(client.ApiClient(settings))

    def close(self):
        self.end_watches()
        self.__exit__()

    @property
    def watchers(self):
        return self.watches

    def apply(self, made):
        self.replace({"apiVersion": "v1", "kind": "Pod", **made})

    def delete(self, name, namespace="default"):
        self.store.delete(("pods", namespace, name))

    def refuse(self, status):
        """Answer every request with this status from now on."""
        self.fail("GET", "/pods$", status, times=1_000_000)

    def heal(self):
        self.faults.clear()
