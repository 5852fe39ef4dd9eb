"""The client that replays prompts, against a server that keeps what it is sent, and the numbers of its outcomes."""

import json
from array import array

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kvsync.load.client import Outcome, Replayer
from kvsync.load.summary import hit_curve, ideal_curve, summarize
from kvsync.replay.limits import find_limits, fit_requests
from kvsync.replay.live import replay_live
from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.prompts import Prompt, PromptStream, make_prompts
from kvsync_workload.trace import read_trace

LINES = [
    {"timestamp": 900, "input_length": 1100, "output_length": 3, "hash_ids": [2**63, 8, 9]},
    {"timestamp": 500, "input_length": 1100, "output_length": 0, "hash_ids": [2**63, 8]},
    {"timestamp": 950, "input_length": 20, "output_length": 2, "hash_ids": [2**32]},
]


class Recorder:
    """An OpenAI server with one model, which answers every completion in full and keeps the requests."""

    def __init__(self):
        self.bodies = []

    def make_app(self):
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        return app

    async def _models(self, request):
        return web.json_response({"data": [{"id": "m"}]})

    async def _complete(self, request):
        body = await request.json()
        self.bodies.append(body)
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": body["max_tokens"]}
        chunks = [{"choices": [{"text": "x"}]}] * body["max_tokens"] + [{"choices": [], "usage": usage}]
        lines = [json.dumps(chunk, separators=(",", ":")) for chunk in chunks] + ["[DONE]"]
        return web.Response(text="".join(f"data: {line}\n\n" for line in lines), content_type="text/event-stream")


@pytest.fixture
async def server():
    recorder = Recorder()
    async with TestServer(recorder.make_app()) as running:
        recorder.url = str(running.make_url("")).rstrip("/")
        yield recorder


async def test_a_live_replay_sends_the_requests_of_the_trace_in_order_of_time(server, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    trace = read_trace(path)
    assert trace.reordered == 1
    times = arrival_times(trace.requests, Arrivals("rate", rate=1000.0), 0)
    async with aiohttp.ClientSession() as session:
        limits = await find_limits(session, server.url, vocabulary=1 << 24)
        result = await replay_live(session, server.url, limits, PromptStream(trace.requests, 1, times), 1)
    assert [body["max_tokens"] for body in server.bodies] == [1, 3, 2]
    assert {body["model"] for body in server.bodies} == {"m"}
    expected = [prompt.token_ids for prompt in make_prompts(trace.requests)]
    assert [array("I", body["prompt"]) for body in server.bodies] == expected
    early, late, short = expected
    assert early[:1024] == late[:1024]
    assert early[1024:] != late[1024:]
    assert len(short) == 20
    assert [record.ok for record in result.records] == [True] * 3
    assert [record.output_tokens for record in result.records] == [1, 3, 2]


def outcome(number, ttft_s=0.1, **values):
    fields = {
        "ok": True,
        "sent_s": 0.0,
        "ended_s": float(number),
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 5,
        "issues": 1,
        "endpoint": "a",
        "matched_tokens": 0,
        "policy": "kv",
    }
    return Outcome(number=number, ttft_s=ttft_s, **fields | values)


def test_numbers_of_outcomes():
    outcomes = [
        outcome(1, 0.1),
        outcome(2, 0.3, cached_tokens=0, endpoint="b", issues=2),
        outcome(3, 9.0, ok=False, cached_tokens=0, prompt_tokens=7, issues=6),
    ]
    found = summarize(outcomes)
    assert (found.requests, found.failed, found.reissued) == (3, 1, 2)
    assert (found.prompt_tokens, found.cached_tokens, found.hit_ratio) == (200, 40, 0.2)
    assert found.ttft_ms == {"p50": 100.0, "p95": 300.0, "p99": 300.0}
    assert (found.by_endpoint, found.by_policy) == ({"a": 1, "b": 1}, {"kv": 2})
    assert found.duration_s == 3.0
    assert hit_curve(outcomes) == [(1.0, 0.4), (2.0, 0.2)]
    assert ideal_curve(outcomes, [0, 80, 60, 0]) == [(1.0, 0.8), (2.0, 0.7)]
    assert summarize([]).ttft_ms == {"p50": None, "p95": None, "p99": None}


# -- what a server refuses ----------------------------------------------------------------------------------------


class Strict(Recorder):
    """Refuses ids outside of its vocabulary and sequences that are too long in vLLM's words, or every request."""

    def __init__(self, vocabulary=2048, max_model_len=2048, status=None):
        super().__init__()
        self.vocabulary, self.max_model_len, self.status = vocabulary, max_model_len, status

    async def _models(self, request):
        return web.json_response({"data": [{"id": "m", "max_model_len": self.max_model_len}]})

    async def _complete(self, request):
        body = await request.json()
        problem = None
        if self.status is not None:
            problem = f"no answer to request {len(self.bodies)}"
        elif max(body["prompt"]) >= self.vocabulary:
            problem = f"Token id {max(body['prompt'])} is out of vocabulary"
        elif len(body["prompt"]) + body["max_tokens"] > self.max_model_len:
            problem = "This model's maximum context length is exceeded"
        if problem is None:
            return await super()._complete(request)
        self.bodies.append(body)
        status = self.status or 400
        return web.json_response(
            {"error": {"message": problem, "type": "BadRequestError", "code": status}}, status=status
        )


@pytest.fixture
async def strict():
    running = []

    async def start(**how):
        server = Strict(**how)
        running.append(TestServer(server.make_app()))
        await running[-1].start_server()
        server.url = str(running[-1].make_url("")).rstrip("/")
        return server

    yield start
    for each in running:
        await each.close()


@pytest.mark.parametrize("vocabulary", [2, 2047, 2048, 128_256, (1 << 24) - 1])
async def test_the_vocabulary_is_measured(strict, vocabulary):
    server = await strict(vocabulary=vocabulary)
    async with aiohttp.ClientSession() as session:
        limits = await find_limits(session, server.url)
    assert (limits.model, limits.max_model_len, limits.vocabulary) == ("m", 2048, vocabulary)
    assert len(server.bodies) <= 26
    assert all(len(body["prompt"]) == body["max_tokens"] == 1 for body in server.bodies)


async def test_a_server_that_takes_every_id_is_asked_once_and_a_given_size_is_believed(strict):
    server = await strict(vocabulary=1 << 24)
    async with aiohttp.ClientSession() as session:
        assert (await find_limits(session, server.url)).vocabulary is None
        assert len(server.bodies) == 1
        assert (await find_limits(session, server.url, "m", 500)).vocabulary == 500
        assert len(server.bodies) == 1
        for status in (400, 401, 429, 503):
            refusing = await strict(status=status)
            assert (await find_limits(session, refusing.url)).vocabulary is None
            assert len(refusing.bodies) <= 2


async def test_a_replay_stays_inside_vocabulary_and_length_and_keeps_shared_prefixes(strict, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    requests = read_trace(path).requests
    server = await strict(max_model_len=1030)
    async with aiohttp.ClientSession() as session:
        limits = await find_limits(session, server.url)
        server.bodies.clear()
        fitted, cut = fit_requests(requests, 1, limits.max_model_len)
        result = await replay_live(session, server.url, limits, PromptStream(fitted), 1)
    assert cut == 2
    assert [record.failure for record in result.records] == [None] * 3
    early, late, short = (body["prompt"] for body in server.bodies)
    assert [len(each) for each in (early, late, short)] == [1029, 1027, 20]
    assert early[:1024] == late[:1024]
    assert early[1024:1027] != late[1024:]
    assert len(set(map(tuple, (early[:512], early[512:1024], early[1024:], short)))) == 4
    assert max(map(max, (early, late, short))) < 2048


@pytest.mark.parametrize("limit", [2, 3, 100, 10**6])
@pytest.mark.parametrize("scale", [1, 32])
def test_requests_fit_any_length(tmp_path, limit, scale):
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, [*LINES, {**LINES[0], "output_length": 10**6}])))
    requests = read_trace(path).requests
    fitted, cut = fit_requests(requests, scale, limit)
    for prompt in make_prompts(fitted, scale):
        assert len(prompt.token_ids) >= 1
        assert prompt.output_tokens >= 1
        assert len(prompt.token_ids) + prompt.output_tokens <= limit
    assert cut == sum(new != old for new, old in zip(fitted, requests, strict=True))
    assert fit_requests(requests, scale, None) == (requests, 0)


@pytest.mark.parametrize(("status", "issues"), [(400, 1), (404, 1), (422, 1), (429, 1), (500, 6), (503, 6)])
async def test_a_refused_request_is_not_repeated_and_says_why(strict, monkeypatch, status, issues):
    monkeypatch.setattr("kvsync.load.client.RETRY_S", 0.0)
    server = await strict(status=status)
    async with aiohttp.ClientSession() as session:
        replayer = Replayer(session, server.url, "m", speed=1.0)
        prompt = Prompt(0, 0.0, array("I", [5000]), 1)
        (outcome,) = await replayer.run([prompt])
    assert len(server.bodies) == outcome.issues == issues
    assert (outcome.ok, outcome.status) == (False, status)
    assert outcome.error == f"no answer to request {issues - 1}"
