"""Engines and routers on real loopback sockets, for the router's tests."""

import asyncio
import contextlib
import json
import socket
import time

import aiohttp
import uvicorn
from aiohttp import web

from kvsync_indexer.router import (
    CallableDirectory,
    CallableScorer,
    RouterConfig,
    build_router,
)

MODEL = "test-model"


def free_socket(port=0):
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen(64)
    return bound


async def until(condition, what, deadline_s=10.0):
    """Poll `condition` until it holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        await asyncio.sleep(0.005)


class FakeEngine:
    """An engine whose answers a test scripts: `behave(request)` returns a response or raises."""

    def __init__(self, name, behave=None):
        self.name = name
        self.behave = behave
        self.port = 0
        self.seen = []
        self.bodies = []
        self.cancelled = 0
        self.release = asyncio.Event()
        self.healthy = True
        self._runner = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        bound = free_socket(self.port)
        self.port = bound.getsockname()[1]
        await web.SockSite(self._runner, bound).start()
        return self

    async def stop(self):
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _health(self, _request):
        return web.Response(status=200 if self.healthy else 503)

    async def _models(self, _request):
        data = [{"id": MODEL, "object": "model", "parent": None}]
        data.append({"id": f"lora-{self.name}", "object": "model", "parent": MODEL})
        return web.json_response({"object": "list", "data": data})

    async def _complete(self, request):
        self.seen.append(request)
        self.bodies.append(await request.read())
        try:
            if self.behave is not None:
                return await self.behave(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return web.json_response({"engine": self.name})


@contextlib.asynccontextmanager
async def running_router(engines, matches=None, directory=None, scorer=None, client=None, predictions=None, **settings):
    """(router, base URL) of a router before `engines`; `matches` answers queries in process."""

    async def match(query):
        return matches(query) if callable(matches) else matches or {}

    def rows():
        return [{"name": engine.name, "model": MODEL, "http_url": engine.url} for engine in engines]

    config = RouterConfig.parse({"refresh_s": 0.05, "probe_s": 0.02, **settings})
    router = build_router(
        config, directory or CallableDirectory(rows), scorer or CallableScorer(match), client, predictions=predictions
    )
    bound = free_socket()
    server = uvicorn.Server(
        uvicorn.Config(router.app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    )
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await until(lambda: server.started or serving.done(), "router started")
        yield router, f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def running_engines(*names):
    engines = [await FakeEngine(name).start() for name in names]
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.stop()


async def ask(session, url, path="/v1/completions", headers=None, **fields):
    """POST one request; (status, headers, body)."""
    body = json.dumps({"model": MODEL, "prompt": [1, 2, 3, 4], **fields})
    async with session.post(url + path, data=body, headers=headers) as response:
        return response.status, response.headers, await response.read()


__all__ = ["MODEL", "FakeEngine", "aiohttp", "ask", "free_socket", "running_engines", "running_router", "until"]
