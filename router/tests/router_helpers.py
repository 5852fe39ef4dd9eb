"""Engines and routers on real loopback sockets, for the router's tests."""

import asyncio
import contextlib
import json
import socket

from aiohttp import web

from kvsync_indexer.api import MatchAnswer, MatchRow, PredictionAnswer, PublisherRow
from kvsync_indexer.serving import HttpServer
from kvsync_router.config import RouterConfig
from kvsync_router.proxy import ProxyApp
from kvsync_router.proxy.protocol import ClientProtocol
from kvsync_router.routing import Routing
from kvsync_router.sources.directory import InProcessDirectory
from kvsync_router.sources.predictions import InProcessPredictions
from kvsync_router.sources.scoring import InProcessScorer
from kvsync_testkit.waiting import until

MODEL = "test-model"


def free_socket(port=0):
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    bound.listen(2048)
    return bound


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
        self.hangs = False
        self.api_key = None
        self.keys = []
        self.aliases = []
        self.models = None
        self._runner = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_route("*", "/{path:.*}", self._complete)
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
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=200 if self.healthy else 503)

    async def _models(self, request):
        self.keys.append(request.headers.get("authorization"))
        if self.api_key is not None and self.keys[-1] != f"Bearer {self.api_key}":
            return web.Response(status=401)
        if self.models is not None:
            return web.Response(body=self.models)
        data = [{"id": name, "object": "model", "parent": None} for name in (MODEL, *self.aliases)]
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


class FakeIndex:
    """An index in the router's process. `matches` gives tokens per endpoint, or is a function of the request."""

    def __init__(self, engines, matches=None, record=None):
        self._engines, self._matches, self._record = engines, matches, record
        self.states = {}
        self.keys = {}

    async def match(self, request):
        matches = self._matches(request) if callable(self._matches) else self._matches or {}
        rows = [MatchRow(name, name, 0, 0, tokens, {}, "live", 0.0, False) for name, tokens in matches.items()]
        return MatchAnswer(1, 0, rows)

    def publishers(self):
        return [
            PublisherRow(name=one.name, model=MODEL, state=self.states.get(one.name, "live"), http_url=one.url)
            for one in self._engines
        ]

    def api_key(self, publisher):
        return self.keys.get(publisher)

    def offer_decisions(self, newest):
        self.newest_decisions = newest

    def record_prediction(self, report):
        if self._record is not None:
            self._record(report)
        return PredictionAnswer(report.publisher, 1, 0.0)


class HttpIndex:
    """An index over HTTP whose answers a test sets."""

    def __init__(self, engines, matches):
        self.engines, self.matches = engines, matches
        self.status, self.hang, self.asked, self.port = 200, False, [], 0
        self._runner = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def start(self):
        app = web.Application()
        app.router.add_post("/v1/match", self._match)
        app.router.add_get("/v1/publishers", self._publishers)
        app.router.add_get("/readyz", self._readyz)
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

    async def _match(self, request):
        self.asked.append(await request.json())
        if self.hang:
            await asyncio.Event().wait()
        rows = [
            {"publisher": name, "pod": name, "rank": 0, "matched_blocks": 0, "matched_tokens": count, "tiers": {},
             "state": state, "age_s": 0.0, "incomplete": False}
            for name, count, state in self.matches
        ]  # fmt: skip
        return web.json_response({"block_size": 16, "query_blocks": 1, "matches": rows}, status=self.status)

    async def _publishers(self, _request):
        rows = [{"name": engine.name, "model": MODEL, "http_url": engine.url} for engine in self.engines]
        return web.json_response({"publishers": [{**row, "state": "live"} for row in [*rows, {"name": "no-url"}]]})

    async def _readyz(self, _request):
        known = len(self.engines)
        ready = {"ready": True, "core": "native", "publishers": known, "live": known, "problem": None, "discovery": {}}
        return web.json_response(ready)


@contextlib.asynccontextmanager
async def running_router(
    engines,
    matches=None,
    directory=None,
    scorer=None,
    client=None,
    record=None,
    index=None,
    http=ClientProtocol,
    routing=None,
    **settings,
):
    """(routing, base URL) of a router before `engines`; `matches` answers for an index in this process.

    `record` is called with each report about a prediction. `routing` replaces everything but the front.
    """
    config = RouterConfig.parse({"refresh_s": 0.05, "probe_s": 0.02, **settings})
    index = index or FakeIndex(engines, matches, record)
    routing = routing or Routing(
        config,
        directory or InProcessDirectory(index),
        scorer or InProcessScorer(index),
        client,
        predictions=InProcessPredictions(index) if record is not None else None,
    )
    bound = free_socket()
    server = HttpServer(ProxyApp(routing), bound, http=http)
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    serving = asyncio.create_task(server.serve())
    try:
        await until("the router started", lambda: server.started or serving.done())
        yield routing, url
    finally:
        server.stop(at_once=False)
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
