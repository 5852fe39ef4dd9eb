"""Audit and tokenization against an engine's HTTP side, faked over real HTTP."""

import json
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from service_helpers import BLOCK, DEADLINE_S, MODEL, ScriptedPublisher

from kvsync_indexer.api import MatchRequest, PredictionReport
from kvsync_indexer.audit import Auditor
from kvsync_indexer.core import make_core
from kvsync_indexer.errors import RequestError, TokenizeError
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.prediction import Predictions
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.service.match import Matcher
from kvsync_indexer.sync import State
from kvsync_indexer.tokenizing import Tokenizers
from kvsync_testkit.waiting import wait_until


class Engine:
    """`/tokenize` (a token a character) and `/debug/kv` of a scripted publisher."""

    def __init__(self, pub):
        self.pub = pub
        self.quiet = True
        self.status = 200
        self.garbage = None
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def answer(self, data, status=200):
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                path = urlsplit(self.path).path
                self.answer(engine.garbage or engine.get(path), engine.status)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                text = body.get("prompt") or "".join(each["content"] for each in body["messages"])
                tokens = [ord(each) for each in text]
                self.answer(json.dumps({"count": len(tokens), "tokens": tokens}).encode(), engine.status)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def get(self, path):
        pub = self.pub
        if path == "/debug/kv/digest":
            row = {"rank": 0, "group_idx": None, "medium": "GPU", "count": pub.digest().count}
            row["digest"] = pub.digest().hex()
            return json.dumps({"digests": [row], "seq": {"0": pub.seq - 1}, "quiet": self.quiet}).encode()
        rows = [{"hash": each, "medium": "GPU", "group_idx": None, "rank": 0, "copies": 1} for each in pub.resident]
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def setup():
    pub = ScriptedPublisher()
    engine = Engine(pub)
    ingest = Ingest(make_core("python"))
    ingest.start()
    spec = PublisherSpec(
        name="pod",
        model=MODEL,
        endpoint=pub.endpoint,
        replay_endpoint=pub.replay_endpoint,
        debug_url=engine.url,
        http_url=engine.url,
    )
    ingest.add(spec)
    link = wait_until("the publisher is known", lambda: ingest.link("pod"), deadline_s=DEADLINE_S)
    wait_until("the publisher is live", lambda: link.machine.state is State.LIVE, deadline_s=DEADLINE_S)
    yield pub, engine, ingest, link
    ingest.stop()
    engine.close()
    pub.close()


@pytest.fixture
async def auditor(setup):
    made = Auditor(setup[2])
    yield made
    await made.close()


async def one(auditor, **how):
    report = await auditor.audit(**how)
    return report, report.publishers[0]


async def test_equal_and_then_a_false_hit_and_a_missed_one(setup, auditor):
    pub = setup[0]
    hashes = pub.store(3)
    report, audit = await one(auditor, wait_quiet_s=5)
    assert (audit.verdict, audit.engine_blocks, report.differences, report.equal) == ("equal", 3, 0, True)
    del pub.resident[hashes[0]]  # the engine says otherwise than its events did
    pub.resident[123456789] = 1
    report, audit = await one(auditor, wait_quiet_s=5)
    assert audit.verdict == "different"
    assert (audit.missing, audit.extra, report.differences, report.equal) == (1, 1, 2, False)
    assert audit.slots[0].missing_examples == ["123456789"]
    assert audit.slots[0].extra_examples == [str(hashes[0])]
    assert auditor.verdicts == {"equal": 1, "different": 1}


async def test_a_working_engine_is_no_difference(setup, auditor):
    pub, engine, _, _ = setup
    pub.store(1)
    pub.resident[5] = 1
    engine.quiet = False
    report, audit = await one(auditor)
    assert audit.verdict == "inconclusive"
    assert report.differences == 0
    assert not report.equal
    assert audit.detail == "the engine is not quiet"


async def test_a_batch_that_never_arrived_is_waited_for(setup, auditor):
    pub, _, _, link = setup
    pub.store(2)
    wait_until("the batch is applied", lambda: link.machine.next_seq == 1, deadline_s=DEADLINE_S)
    pub.store(1, send=False)
    _, audit = await one(auditor)
    assert audit.verdict == "inconclusive"
    assert "published batch 1" in audit.detail
    _, audit = await one(auditor, wait_quiet_s=10)  # the check after connecting finds the tail
    assert audit.verdict == "equal"


@pytest.mark.parametrize(("status", "garbage"), [(404, None), (500, None), (200, b"[1]"), (200, b"{")])
async def test_no_ground_truth_to_read(setup, auditor, status, garbage):
    _, engine, _, _ = setup
    engine.status, engine.garbage = status, garbage
    _, audit = await one(auditor)
    assert audit.verdict == "unreachable"
    assert "\n" not in audit.detail
    assert engine.url in audit.detail


async def test_equal_ends_incomplete(setup, auditor):
    pub, _, _, link = setup
    pub.store(2)
    wait_until("the batch is applied", lambda: link.machine.next_seq == 1, deadline_s=DEADLINE_S)
    link.machine.standing.incomplete = True
    _, audit = await one(auditor, wait_quiet_s=5)
    assert audit.verdict == "equal"
    assert not link.machine.incomplete


async def test_text_is_tokenized_by_the_engine(setup):
    pub, engine, ingest, link = setup
    text = "abcdefgh"
    pub.store(2, [ord(each) for each in text])
    wait_until("the batch is applied", lambda: link.machine.next_seq == 1, deadline_s=DEADLINE_S)
    tokenizer = Tokenizers(clock=time.monotonic)
    matcher = Matcher(ingest, tokenizer)
    try:
        answer = await matcher.answer(MatchRequest(model=MODEL, prompt=text + "xyz"))
        assert (answer.matches[0].matched_blocks, answer.query_blocks) == (2, len(text + "xyz") // BLOCK)
        messages = [{"role": "user", "content": text[:5]}]
        (row,) = (await matcher.answer(MatchRequest(model=MODEL, messages=messages))).matches
        assert (row.publisher, row.matched_tokens) == ("pod", BLOCK)
        engine.status = 400
        with pytest.raises(RequestError, match="refused"):
            await matcher.answer(MatchRequest(model=MODEL, prompt="x"))
        engine.status = 500
        with pytest.raises(TokenizeError, match="/tokenize"):
            await matcher.answer(MatchRequest(model=MODEL, prompt="x"))
    finally:
        await tokenizer.close()


async def test_without_ground_truth_predictions_are_what_is_known(setup, auditor):
    _, engine, _, link = setup
    link.spec = replace(link.spec, debug_url=None)
    _, audit = await one(auditor)
    assert (audit.verdict, audit.prediction_error, audit.engine_hit_ratio) == ("no_ground_truth", None, None)
    auditor.predictions.record(PredictionReport("pod", 64, 64))
    auditor.predictions.record(PredictionReport("pod", 64, 32))
    auditor.predictions.record(PredictionReport("pod", 0, 16))
    auditor.predictions.record(PredictionReport("gone", 1, 1))
    engine.garbage = (
        b"# TYPE vllm:prefix_cache_hits_total counter\n"
        b'vllm:prefix_cache_hits_total{engine="0",model_name="m"} 30.0\n'
        b'vllm:prefix_cache_hits_total{engine="1",model_name="m"} 10.0\n'
        b'vllm:prefix_cache_queries_total{engine="0",model_name="m"} 160.0\n'
    )
    _, audit = await one(auditor)
    assert audit.predicted_requests == 3
    assert audit.prediction_error == pytest.approx((32 + 16) / 128)
    assert audit.engine_hit_ratio == 0.25
    totals = auditor.predictions.totals["pod"]
    assert (totals.exact, totals.over, totals.under) == (1, 32, 16)
    assert "gone" not in auditor.predictions.totals


def test_a_prediction_of_the_whole_prompt_counts_up_to_its_last_token():
    totals = Predictions().record(PredictionReport("p", 160, 144, 160), 16)
    assert (totals.predicted, totals.exact, totals.over) == (144, 1, 0)
    assert Predictions().record(PredictionReport("p", 160, 144)).over == 16
    assert Predictions().record(PredictionReport("p", 160, 160, 161), 16).exact == 1
