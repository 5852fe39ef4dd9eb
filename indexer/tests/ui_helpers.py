"""A scripted index behind the page, whose answers a test sets, and which can want a token, move or go away."""

import contextlib
import socket
import threading
import time

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from kvsync_indexer.service.ui import ui_routes
from kvsync_testkit.waiting import wait_until

DEADLINE_S = 60.0


def publisher(name, **fields):
    """A row of `/v1/publishers`."""
    row = {
        "name": name, "model": "m", "state": "live", "reason": "every known batch is applied", "lag": 0, "age_s": 0.2,
        "blocks": 10, "epoch": None, "ready": True, "incomplete": False, "rank": 0,
    }  # fmt: skip
    return {**row, **fields}


class ScriptedIndex:
    """Serves the page and `answers` by path, below `prefix` and only with `token`, as a proxy may have it."""

    def __init__(self, *, prefix="", token=None, audit_token=None):
        self.prefix = prefix
        self.token = token
        self.audit_token = audit_token or token
        self.answers = {
            "/v1/publishers": {"publishers": []},
            "/v1/history": self.history(),
            "/readyz": {"ready": True, "core": "native", "publishers": 0, "live": 0, "problem": None, "discovery": {}},
        }
        self.asked = []
        self._bound = socket.socket()
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind(("127.0.0.1", 0))
        self.port = self._bound.getsockname()[1]

    @staticmethod
    def history(*, started=1000.0, points=(), transitions=()):
        """An answer of `/v1/history`."""
        return {
            "started_at": started, "interval_s": 5.0, "points": list(points), "transitions": list(transitions),
            "transitions_dropped": 0,
        }  # fmt: skip

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.prefix}/ui"

    def publish(self, *rows):
        self.answers["/v1/publishers"] = {"publishers": list(rows)}
        live = sum(row["state"] == "live" for row in rows)
        self.answers["/readyz"] = {**self.answers["/readyz"], "publishers": len(rows), "live": live}

    async def _answer(self, request):
        path = request.url.path.removeprefix(self.prefix)
        body = await request.body()
        self.asked.append((path, body))
        token = self.audit_token if path == "/v1/audit" else self.token
        if token is not None and path != "/readyz" and request.headers.get("authorization") != f"Bearer {token}":
            return JSONResponse({"error": {"message": "a token is needed"}}, 401)
        if path not in self.answers:
            return JSONResponse({"error": {"message": "no such path"}}, 404)
        return JSONResponse(self.answers[path])

    @contextlib.contextmanager
    def running(self):
        routes = [*ui_routes(), Route("/{rest:path}", self._answer, methods=["GET", "POST"])]
        app = Starlette(routes=[Mount(self.prefix, routes=routes)] if self.prefix else routes)
        bound = self._bound.dup() if self._bound.fileno() != -1 else self._again()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        wait_until("the scripted index serves", lambda: server.started, deadline_s=DEADLINE_S)
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(DEADLINE_S)
            bound.close()
            self._bound.close()

    def _again(self):
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", self.port))
        return bound


def point(at=None, **fields):
    """A point of `/v1/history`."""
    made = {
        "at": time.time() if at is None else at, "publishers": 2, "live": 1, "blocks": 100, "lag": 3,
        "events_per_s": 12.0, "received_bytes_per_s": 5000.0, "matches_per_s": 1.5, "arrival_p50_s": 0.0003,
        "visible_p99_s": None, "predicted_tokens": 100, "cached_tokens": 90, "over_tokens": 10, "under_tokens": 0,
    }  # fmt: skip
    return {**made, **fields}
