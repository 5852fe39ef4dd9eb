"""Invariant I13 on real processes: whatever is killed or stopped, each request has one outcome, and it is an answer."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from router_helpers import FakeEngine

from kvsync_testkit.processes import Index, MockEngine, Router, stopping
from kvsync_testkit.waiting import until

MODEL = "mock-model"
CLIENTS = 16
PROMPT = list(range(100, 228))


@pytest.fixture(scope="module")
def engines():
    pair = [MockEngine(model=MODEL, enable_prompt_tokens_details=True) for _ in range(2)]
    with stopping(*pair):
        for engine in pair:
            engine.ready("/health")
        yield pair


class Load:
    """Clients that ask one request after the other until they are told to stop, and what became of each."""

    def __init__(self, url, **fields):
        self.url = url
        self.fields = fields
        self.outcomes = []
        self._going = True

    async def client(self, session, number):
        asked = 0
        while self._going:
            prompt = "a text of words " * (number + 1) if self.fields.get("text") else [*PROMPT, number, asked]
            body = {"model": MODEL, "prompt": prompt, "max_tokens": 4}
            try:
                async with session.post(f"{self.url}/v1/completions", json=body) as response:
                    text = await response.text()
                    self.outcomes.append((response.status, response.headers.get("x-kvsync-endpoint"), text[:300]))
            except (aiohttp.ClientError, OSError) as error:
                self.outcomes.append((type(error).__name__, None, str(error)))
            asked += 1

    @contextlib.asynccontextmanager
    async def running(self):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            clients = [asyncio.create_task(self.client(session, number)) for number in range(CLIENTS)]
            try:
                await self.more(50)
                yield
                await self.more(50)
            finally:
                self._going = False
                await asyncio.gather(*clients)

    async def more(self, number):
        """Wait until so many further requests have an outcome."""
        wanted = len(self.outcomes) + number
        await until(f"{wanted} requests have an outcome", lambda: len(self.outcomes) >= wanted, deadline_s=60)

    def failures(self):
        return [outcome for outcome in self.outcomes if outcome[0] != 200]


def kill(process):
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()


@pytest.mark.parametrize("victims", [("index",), ("engine",), ("index", "engine")], ids="+".join)
async def test_what_is_killed_costs_no_request_more_than_its_retry(tmp_path, victims):
    pair = [MockEngine(model=MODEL) for _ in range(2)]
    with stopping(*pair):
        index = Index(*pair, folder=tmp_path)
        with stopping(index.live()):
            router = Router(index)
            with stopping(router.live()):
                load = Load(router.url)
                async with load.running():
                    if "index" in victims:
                        kill(index)
                    if "engine" in victims:
                        kill(pair[0])
                    await load.more(100)
                assert load.failures() == []
                if "engine" in victims:
                    assert load.outcomes[-1][1] == "engine-1"
                served = sum(
                    router.metric("kvsync_router_requests_total", policy=policy, outcome="ok")
                    for policy in ("kv", "least_request")
                )
                assert served == len(load.outcomes)


@pytest.mark.parametrize("text", [False, True], ids=["token ids", "text"])
async def test_a_stopped_engine_leaves_the_rotation_and_its_requests_are_answered_elsewhere(tmp_path, text):
    pair = [MockEngine(model=MODEL) for _ in range(2)]
    with stopping(*pair):
        index = Index(*pair, folder=tmp_path)
        with stopping(index.live()):
            router = Router(index, health_timeout=0.2)
            with stopping(router.live()):
                stopped = pair[0].process.pid
                load = Load(router.url, text=text)
                try:
                    async with load.running():
                        os.kill(stopped, signal.SIGSTOP)
                        await until(
                            "it has left the rotation",
                            lambda: not _healthy(router, "engine-0"),
                            deadline_s=60,
                        )
                        await load.more(50)
                        os.kill(stopped, signal.SIGCONT)
                        await until("it is back", lambda: _healthy(router, "engine-0"), deadline_s=60)
                        await load.more(50)
                finally:
                    os.kill(stopped, signal.SIGCONT)
                assert load.failures() == []
                assert {endpoint for _, endpoint, _ in load.outcomes} == {"engine-0", "engine-1"}


def _healthy(router, name):
    rows = router.ok("GET", "/v1/endpoints")["endpoints"]
    return next(row["healthy"] for row in rows if row["name"] == name)


def resident_mib(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


STREAMS = 1000
WAVES = 3
MOST_MIB = 200


async def test_a_thousand_idle_streams_in_bounded_memory(tmp_path):
    """Waves of streams that begin, wait, go on and end. The router's memory neither grows large nor wave by wave."""
    engine = FakeEngine("engine-0")
    begun = 0

    async def behave(request):
        nonlocal begun
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        begun += 1
        await engine.release.wait()
        await response.write(b"data: [DONE]\n\n")
        return response

    engine.behave = behave
    await engine.start()
    publishers = tmp_path / "publishers.yaml"
    entry = {"name": "engine-0", "model": "test-model", "endpoint": "tcp://127.0.0.1:1", "http_url": engine.url}
    publishers.write_text(json.dumps([entry]))
    router = _FileRouter(publishers)
    try:
        with stopping(router):
            await asyncio.to_thread(router.ready, "/readyz")
            resident = []
            for wave in range(1, WAVES + 1):
                engine.release.clear()
                async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
                    streams = [asyncio.create_task(_stream(session, router.url)) for _ in range(STREAMS)]
                    await until("all have begun", lambda n=wave * STREAMS: begun == n, deadline_s=120)
                    resident.append(resident_mib(router.process.pid))
                    engine.release.set()
                    assert set(await asyncio.gather(*streams)) == {b"data: 1\n\ndata: [DONE]\n\n"}
            assert max(resident) < MOST_MIB
            assert resident[-1] - resident[0] < 0.15 * resident[0]
    finally:
        await engine.stop()


class _FileRouter(Router):
    """A router without an index."""

    def __init__(self, publishers):
        super(Router, self).__init__("kvsync_router.proxy.main", "--publishers", publishers, "--health-timeout", 60)


async def _stream(session, url):
    body = {"model": "test-model", "prompt": "x", "stream": True}
    async with session.post(f"{url}/v1/completions", json=body) as response:
        return await response.read()
