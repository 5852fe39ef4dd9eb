"""The router tells the index how its predictions did: mock engines, index and router as processes, and the parts."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from router_helpers import ask, free_socket, running_engines, running_router

from kvsync_indexer.api import PredictionReport
from kvsync_indexer.client import AsyncIndexClient
from kvsync_router.decisions.requests import parse_request
from kvsync_router.decisions.usage import MAX_ANSWER_BYTES, STREAM_TAIL_BYTES, Usage, UsageReader
from kvsync_router.errors import UsageUnreadableError
from kvsync_router.sources.client import HttpClient
from kvsync_router.sources.predictions import QUEUE, HttpPredictions
from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import MODEL, HttpPort, MockEngine, Process, stopping
from kvsync_testkit.waiting import until, wait_until

BLOCK = 16
PROMPT = list(range(10 * BLOCK))
DEADLINE_S = 30.0


@pytest.fixture(scope="module", params=["in process", "over HTTP"])
def stack(request, tmp_path_factory):
    """(router, index) before an engine that tells cached tokens and one that does not; the second has its own model."""
    folder = tmp_path_factory.mktemp("stack")
    told = MockEngine("--enable-prompt-tokens-details")
    silent = MockEngine(model="silent")
    entries = [told.entry("told"), silent.entry("silent")]
    path = folder / "publishers.yaml"
    path.write_text(json.dumps(entries))
    with stopping(told, silent):
        for engine in (told, silent):
            engine.ready("/health")
        flags = ("--publishers", path)
        if request.param == "in process":
            index = Process("kvsync_indexer.main", *flags, "--router-port", (port := free_port()))
            router = index
        else:
            index = Process("kvsync_indexer.main", *flags)
            port = free_port()
            router = Process("kvsync_router.proxy.main", "--index-url", index.url, "--match-timeout", 20, port=port)
        with stopping(index, router):
            index.ready("/readyz")
            wait_until("both live", lambda: index.ok("GET", "/readyz")["live"] == 2, deadline_s=DEADLINE_S)
            front = HttpPort(port)
            front.ready("/readyz")
            wait_until(
                "the router knows both",
                lambda: len(front.ok("GET", "/v1/endpoints")["endpoints"]) == 2,
                deadline_s=DEADLINE_S,
            )
            yield front, index


def prompt_of(start):
    return list(range(start, start + len(PROMPT)))


def sums(index, name="told"):
    return {
        key: index.metric(f"kvsync_indexer_prediction_{key}_total", publisher=name)
        for key in ("requests", "exact", "predicted_tokens", "cached_tokens", "over_tokens", "under_tokens")
    }


def complete(router, index, prompt, **fields):
    """One completion, after the index has everything of earlier ones; its usage."""
    wait_until(
        "index equal", lambda: index.ok("POST", "/v1/audit", {"wait_quiet_s": 5})["equal"], deadline_s=DEADLINE_S
    )
    status, _, body = router.ask("POST", "/v1/completions", {"model": MODEL, "prompt": prompt, **fields})
    assert status == 200, body
    return body


def reported(index, before, count):
    wait_until(f"{count} reports", lambda: sums(index)["requests"] == before["requests"] + count, deadline_s=DEADLINE_S)
    after = sums(index)
    return {key: after[key] - before[key] for key in after}


@pytest.mark.parametrize("stream", [False, True])
def test_prediction_and_usage_meet_in_the_index(stack, stream):
    router, index = stack
    before = sums(index)
    prompt = prompt_of(10_000 * (1 + stream))
    how = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    complete(router, index, prompt, max_tokens=2, **how)
    assert reported(index, before, 1) == {
        "requests": 1, "exact": 1, "predicted_tokens": 0, "cached_tokens": 0, "over_tokens": 0, "under_tokens": 0
    }  # fmt: skip
    body = complete(router, index, [*prompt, 1, 2, 3], max_tokens=2, **how)
    assert b'"cached_tokens":160' in body.replace(b" ", b"")
    got = reported(index, before, 2)
    assert (got["exact"], got["predicted_tokens"], got["cached_tokens"]) == (2, 160, 160)
    complete(router, index, prompt, max_tokens=2, **how)  # whole prompt resident: its last block is computed again
    got = reported(index, before, 3)
    assert (got["exact"], got["predicted_tokens"], got["over_tokens"]) == (3, 304, 0)


def test_what_cannot_be_compared_is_not_reported(stack):
    router, index = stack
    before, outcomes = sums(index), router.metric("kvsync_router_predictions_total", outcome="no_usage")
    complete(router, index, prompt_of(50_000), stream=True, max_tokens=1)  # no include_usage
    complete(router, index, [prompt_of(50_000), prompt_of(60_000)], max_tokens=1)
    complete(router, index, prompt_of(50_000), n=2, max_tokens=1)
    status, _, _ = router.ask("POST", "/v1/completions", {"model": "silent", "prompt": PROMPT, "max_tokens": 1})
    assert status == 200
    wait_until(
        "two answers without usage",
        lambda: router.metric("kvsync_router_predictions_total", outcome="no_usage") == outcomes + 2,
        deadline_s=DEADLINE_S,
    )
    assert sums(index) == before
    assert sums(index, "silent")["requests"] == 0


def test_a_wrong_prediction_shows(stack):
    router, index = stack
    before = sums(index)
    prompt = prompt_of(90_000)
    complete(router, index, prompt, max_tokens=1)
    complete(router, index, prompt, max_tokens=1, cache_salt="a")  # own context: nothing predicted, nothing cached
    assert reported(index, before, 2)["exact"] == 2
    body = {"publisher": "told", "predicted_tokens": 160, "cached_tokens": 16, "prompt_tokens": 500}
    index.ok("POST", "/v1/predictions", body)
    got = reported(index, before, 3)
    assert (got["exact"], got["over_tokens"]) == (2, 144)


def answer(cached=7, prompt=9, **more):
    details = None if cached is None else {"cached_tokens": cached}
    return {"choices": [], **more, "usage": {"prompt_tokens": prompt, "prompt_tokens_details": details}}


def read(kind, *chunks):
    reader = UsageReader(kind)
    for chunk in chunks:
        reader.add(chunk)
    return reader.usage()


def test_usage_of_one_piece():
    body = json.dumps(answer()).encode()
    assert read("application/json; charset=utf-8", *(body[at : at + 1] for at in range(len(body)))) == Usage(9, 7)
    assert read("application/json", json.dumps(answer(None)).encode()) == Usage(9, None)
    assert read("application/json", b'{"usage": null}') is None
    for bad in (b"", b"{", b"\xff", b'{"usage": {"prompt_tokens": "x"}}'):
        with pytest.raises(UsageUnreadableError):
            read("application/json", bad)
    with pytest.raises(UsageUnreadableError):
        read("application/json", body, b" " * MAX_ANSWER_BYTES)


def test_usage_of_a_stream_is_in_its_end():
    text = json.dumps({"choices": [{"text": 'a "cached_tokens": 5 in the text'}], "usage": None}).encode()
    last = json.dumps(answer()).encode()
    events = [b"data: " + text + b"\n\n"] * 3000 + [b"data: " + last + b"\n\n", b"data: [DONE]\n\n"]
    assert read("text/event-stream", *events) == Usage(9, 7)
    whole = b"".join(events)
    assert read("text/event-stream", *(whole[at : at + 7] for at in range(0, len(whole), 7))) == Usage(9, 7)
    assert read("text/event-stream; charset=utf-8", whole) == Usage(9, 7)
    assert read("text/event-stream", *events[:5], events[-1]) is None
    assert read("text/event-stream") is None
    reader = UsageReader("text/event-stream")
    for event in events:
        reader.add(event)
        assert reader._bytes < STREAM_TAIL_BYTES + max(len(text), len(last)) + 8


@pytest.mark.parametrize(
    ("fields", "single"),
    [
        ({"prompt": "x"}, True),
        ({"prompt": ["x"]}, True),
        ({"prompt": ["x", "y"]}, False),
        ({"prompt": [[1]], "n": 1}, True),
        ({"prompt": [[1], [2]]}, False),
        ({"prompt": "x", "n": 2}, False),
        ({"prompt": "x", "n": None, "best_of": 3}, False),
        ({"messages": [], "n": None}, True),
    ],
)
def test_one_prompt_and_one_choice(fields, single):
    assert parse_request(json.dumps(fields).encode()).single is single


async def _answering(_request):
    return web.json_response(answer())


async def test_an_index_that_fails_costs_the_client_nothing():
    def record(_prediction):
        raise RuntimeError("broken")

    async with running_engines("a") as (engine,):
        engine.behave = _answering
        async with running_router([engine], {"a": 4}, record=record) as (router, url):
            async with aiohttp.ClientSession() as session:
                assert (await ask(session, url))[0] == 200
            await until("counted", lambda: router.metrics.predictions.labels("failed")._value.get() == 1)


async def test_nothing_said_means_nothing_cached_once_an_engine_has_said_anything():
    """vLLM leaves `prompt_tokens_details` out where nothing was cached, and where it was not told to give them."""
    got = []
    async with running_engines("a") as (engine,):
        cached = [None, 64, None]

        async def behave(_request):
            return web.json_response(answer(cached.pop(0), 100))

        engine.behave = behave
        async with running_router([engine], {"a": 64}, record=got.append) as (router, url):
            async with aiohttp.ClientSession() as session:
                for _ in range(3):
                    assert (await ask(session, url))[0] == 200
            await until("two reports", lambda: len(got) == 2)
            assert got == [PredictionReport("a", 64, 64, 100), PredictionReport("a", 64, 0, 100)]
            assert router.metrics.predictions.labels("no_usage")._value.get() == 1


async def test_reports_to_an_index_that_hangs_are_bounded_and_nobody_waits():
    asked = []
    release = asyncio.Event()

    async def hang(request):
        asked.append(await request.json())
        await release.wait()
        return web.json_response({"publisher": "p", "requests": 1, "error": 0.0})

    app = web.Application()
    app.router.add_post("/v1/predictions", hang)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    bound = free_socket()
    await web.SockSite(runner, bound).start()
    counts = {}
    client = HttpClient()
    await client.start()
    index = AsyncIndexClient(f"http://127.0.0.1:{bound.getsockname()[1]}", session=client, timeout_s=20.0)
    sink = HttpPredictions(index, 0.0)
    try:
        await sink.start(lambda outcome: counts.update({outcome: counts.get(outcome, 0) + 1}), lambda _: None)
        sink.report(PredictionReport("p", 1, 2, 3))
        await until("asked", lambda: asked)
        for _ in range(QUEUE + 5):
            sink.report(PredictionReport("p", 0, 0, 0))
        assert counts == {"dropped": 5}
        assert asked == [{"publisher": "p", "predicted_tokens": 1, "cached_tokens": 2, "prompt_tokens": 3}]
        release.set()
        await until("all reported", lambda: counts.get("reported") == QUEUE + 1)
        await runner.cleanup()
        sink.report(PredictionReport("p", 0, 0, 0))
        await until("failure counted", lambda: counts.get("failed") == 1)
        sink.report(PredictionReport("p", 0, 0, 0))
    finally:
        await sink.stop()
        await client.stop()
        await runner.cleanup()
    assert sum(counts.values()) == QUEUE + 8
