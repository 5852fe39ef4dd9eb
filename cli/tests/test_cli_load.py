"""The client that replays prompts, against a server that keeps what it is sent, and the numbers of its outcomes."""

import json
from array import array

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kvsync.load.client import Outcome
from kvsync.load.summary import hit_curve, ideal_curve, summarize
from kvsync.replay.live import find_model, replay_live
from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.prompts import PromptStream, make_prompts
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
        model = await find_model(session, server.url)
        result = await replay_live(session, server.url, model, PromptStream(trace.requests, 1, times), 1)
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
