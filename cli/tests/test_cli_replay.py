"""`kvsync replay` and `kvsync trace`: offline replay, its report, and input that is refused."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cli_helpers import invoke, one_line, write_trace

from kvsync.replay.failures import Failure, count_failures
from kvsync.replay.offline import OfflineSettings, replay_offline
from kvsync.replay.page import build_page
from kvsync.replay.records import Record, ReplayResult, by_worker, imbalance
from kvsync.replay.report import Described, build_report
from kvsync.replay.routers import MODEL, KvRouter, worker_name
from kvsync_events import NEWEST_VERSION, BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import Context
from kvsync_mockpod.engine import EngineConfig
from kvsync_mockpod.offline import ReplayConfig, replay
from kvsync_mockpod.text import Tokenizer
from kvsync_pages import render
from kvsync_router.decisions.policies import KvAware
from kvsync_testkit.browser import LOOKS
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.prompts import pack_tokens
from kvsync_workload.trace import read_trace


@contextlib.contextmanager
def refusing_server(message):
    """The URL of a server with the model `m` that answers every completion with 400."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def _answer(self, status, value):
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self._answer(200, {"data": [{"id": "m"}]})

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self._answer(400, {"error": {"message": message}})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def offline(requests, policy="kv", workers=3, seed=0, blocks=2000):
    settings = OfflineSettings(
        workers=workers,
        policy=policy,
        seed=seed,
        blocks=blocks,
        block_size=16,
        max_batched_tokens=8192,
        latency="quadratic",
        core="python",
    )
    arrivals = Arrivals(speed=1.0)
    result, ideal = replay_offline(requests, arrivals, settings)
    described = Described("offline", "t", seed, policy, 1, 16, arrivals, settings.describe())
    return build_report(described, result, ideal)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    path = write_trace(tmp_path_factory.mktemp("t") / "t.jsonl", requests=60, prefixes=9, prefix_blocks=4)
    return read_trace(path).requests


@pytest.mark.parametrize("policy", ["kv", "least_request", "round_robin", "random"])
def test_one_seed_gives_one_report_and_every_policy_serves_all(shared, policy):
    first, second = offline(shared, policy, seed=5), offline(shared, policy, seed=5)
    assert json.dumps(first) == json.dumps(second)
    assert (first["requests"], first["failed"]) == (60, 0)
    assert sum(row["requests"] for row in first["workers"].values()) == 60
    assert 0 < first["hit_ratio"] <= first["ideal_hit_ratio"]


def test_another_seed_differs(shared):
    assert offline(shared, "random", seed=1) != offline(shared, "random", seed=2)


class WireRouter(KvRouter):
    """The `kv` policy on an index that is fed with payloads of the wire, as a live one is."""

    wants_events, wants_runs = True, False

    def __init__(self, workers, core):
        super().__init__(KvAware(), workers, 16, core)
        self._form = WireForm.for_version(NEWEST_VERSION)

    def _matches(self, request):
        found = self._core.match(Context(MODEL), pack_tokens(request.prompt_token_ids))
        return {match.publisher: match.tokens for match in found}

    def observe(self, worker, now, events):
        self._core.apply(worker_name(worker), encode_batch(EventBatch(now, list(events), 0), self._form))
        for event in events:
            if isinstance(event, BlockStored):
                self._announced(worker, event.block_hashes)


@pytest.mark.parametrize("blocks", [2000, 260])
def test_decisions_are_those_of_an_index_that_is_fed_from_the_wire(shared, blocks):
    config = ReplayConfig(
        workers=3,
        engine=EngineConfig.build(num_gpu_blocks=blocks, max_model_len=4096, max_num_batched_tokens=2048),
        arrivals=Arrivals(speed=5.0),
    )
    runs, wire = (
        replay(shared, config, router) for router in (KvRouter(KvAware(), 3, 16, "python"), WireRouter(3, "python"))
    )
    assert runs == wire
    assert len({record.worker for record in runs.records}) == 3


def test_kv_finds_what_round_robin_misses(shared):
    kv, turns = offline(shared, "kv"), offline(shared, "round_robin")
    assert kv["hit_ratio"] > turns["hit_ratio"]
    assert kv["hit_ratio"] > 0.9 * kv["ideal_hit_ratio"]
    assert kv["ttft_ms"]["mean"] < turns["ttft_ms"]["mean"]


def test_one_worker_with_room_for_everything_is_the_ideal(shared):
    report = offline(shared, "round_robin", workers=1, blocks=60_000)
    assert report["hit_ratio"] == report["ideal_hit_ratio"]
    assert report["imbalance"] == 1.0


def test_the_command_writes_the_same_bytes_and_a_page(tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", requests=20, prefix_blocks=2)
    for name in ("a", "b"):
        args = ("--offline", "--workers", 2, "--seed", 4, "--json", f"{name}.json", "--html", f"{name}.html")
        code, out, err = invoke("replay", trace, *args, cwd=tmp_path)
        assert (code, err) == (0, "")
        assert "20 requests, 0 failed" in out
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "Hit ratio over time" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        ((), 2, "give a trace or --synthetic FILE"),
        (("t.jsonl",), 2, "give --target URL or --offline"),
        (("none.jsonl", "--offline"), 2, "none.jsonl: No such file"),
        (("t.jsonl", "--offline", "--scale", "32"), 2, "--scale is for live replays"),
        (("t.jsonl", "--offline", "--blocks", "4"), 2, "max_model_len"),
        (("t.jsonl", "--target", "x", "--scale", "3"), 2, "scale = 3: allowed is a divisor of 512"),
        (("--synthetic", "t.jsonl", "--offline"), 2, "workload t.jsonl: "),
        (("t.jsonl", "--offline", "--latency", "quadratics"), 2, "did you mean 'quadratic'"),
        (("t.jsonl", "--offline", "--prefill-weight", "-1"), 2, "--prefill-weight"),
        (("t.jsonl", "--offline", "--rate", "1", "--poisson", "1"), 2, "exclude each other"),
        (("t.jsonl", "--target", "http://127.1.202.1:9"), 1, "http://127.1.202.1:9"),
    ],
)
def test_bad_input_is_one_line(tmp_path, args, code, says):
    write_trace(tmp_path / "t.jsonl", requests=2)
    found, out, err = invoke("replay", *args, cwd=tmp_path)
    assert (found, out) == (code, "")
    assert says in one_line(err)


def replay_lines(folder, lines, *args):
    """The report of an offline replay of a trace with these lines, and what was printed."""
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, err = invoke("replay", "t.jsonl", "--offline", *args, "--json", "r.json", cwd=folder)
    assert (code, err) == (0, "")
    return json.loads((folder / "r.json").read_text()), out


def line(at_ms, ids, length=1024, output=4):
    return {"timestamp": at_ms, "input_length": length, "output_length": output, "hash_ids": ids}


def test_ids_of_more_than_32_bits_keep_their_identity(tmp_path):
    high = [2**32 + 1, 2**64 - 1]
    report, _ = replay_lines(tmp_path, [line(0, high), line(1000, [1, 2**32 - 1]), line(2000, high)])
    assert report["hit_tokens"] == 1008


def test_a_trace_out_of_time_order_is_sorted_and_the_report_says_so(tmp_path):
    lines = [line(3000, [1, 2]), line(0, [3, 4]), line(1000, [1, 2])]
    report, out = replay_lines(tmp_path, lines)
    assert report["reordered"] == 2
    assert "not in order of time: 2 requests came after a later one" in " ".join(out.split())
    page = build_page(report)
    assert "not in order of time" in page.footer
    ordered, out = replay_lines(tmp_path, sorted(lines, key=lambda each: each["timestamp"]))
    assert report | {"reordered": 0} == ordered
    assert "not in order of time" not in out + build_page(ordered).footer


def test_the_weights_of_the_kv_policy_reach_it(tmp_path):
    write_trace(tmp_path / "t.jsonl", requests=120, gap_ms=5)
    args = ("replay", "t.jsonl", "--offline", "--workers", 3, "--json", "r.json")
    placed = {}
    for weights in (
        (),
        ("--prefill-weight", 0.3, "--decode-weight", 0.05),
        ("--prefill-weight", 0, "--decode-weight", 0),
    ):
        assert invoke(*args, *weights, cwd=tmp_path)[0] == 0
        report = json.loads((tmp_path / "r.json").read_text())
        placed[weights] = [row["requests"] for row in report["workers"].values()]
        assert report["settings"]["prefill_weight"] == (weights[1] if weights else 0.3)
    default, same, none = placed.values()
    assert default == same != none


def test_gaps_of_a_trace_are_filled_offline_as_they_are_live(tmp_path):
    """An output of 0 is 1 token; what has no id belongs to one request alone."""
    report, _ = replay_lines(tmp_path, [line(0, [1], 1000, 0), line(1000, [1], 1000, 0)])
    assert report["output_tokens"] == 2
    assert report["hit_tokens"] == 512


def test_poisson_arrivals_begin_at_zero(tmp_path):
    report, _ = replay_lines(tmp_path, [line(0, [1, 2])], "--poisson", "0.001")
    assert report["duration_s"] < 10


def test_numbers_of_a_report():
    records = [
        Record(0, "a", 0.0, 0.1, 0.5, 100, 40, 10),
        Record(1, "b", 0.0, 0.3, 1.0, 100, 0, 10),
        Record(2, "a", 0.0, 0.0, 0.0, 100, 0, 0, Failure("no", 400)),
    ]
    result = ReplayResult(records, {1000: 99, 5000: 1}, ["a", "b"])
    report = build_report(Described("live", "t", 0, None, 1, 16, Arrivals(), {}), result, 0.5)
    assert (report["requests"], report["failed"], report["hit_ratio"]) == (3, 1, 0.2)
    assert report["tokens_per_s"] == 220.0
    assert report["ttft_ms"] == {"mean": 200.0, "p50": 100.0, "p90": 300.0, "p95": 300.0, "p99": 300.0, "max": 300.0}
    assert report["itl_ms"] == {"mean": 1.04, "p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 1.0, "max": 5.0}
    assert imbalance(by_worker(result)) == round(110 / 90, 4)
    empty = build_report(Described("live", "t", 0, None, 1, 16, Arrivals(), {}), ReplayResult([], {}, []), 0.0)
    assert set(empty["ttft_ms"].values()) == {None}


def test_a_synthetic_workload_is_replayed(tmp_path):
    (tmp_path / "w.yaml").write_text("requests: 30\nprefixes: {count: 3, tokens: 1024}\n")
    args = ("--synthetic", "w.yaml", "--offline", "--requests", 20, "--json", "r.json")
    assert invoke("replay", *args, cwd=tmp_path)[0] == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert (report["requests"], report["failed"]) == (20, 0)
    assert report["hit_ratio"] > 0


def test_a_request_log_becomes_a_trace_of_the_mock_engines_tokens(tmp_path):
    """Text is tokenized as by the mock engine; order and forms of log lines are tested with the converter."""
    lines = [{"created": 2, "prompt": "one two"}, {"created": 1, "prompt": "three"}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, out, err = invoke("trace", "log.jsonl", "-o", "t.jsonl", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert "2 requests" in out
    tokens = [len(Tokenizer().encode(text)) for text in ("three", "one two")]
    assert [request.input_tokens for request in read_trace(tmp_path / "t.jsonl").requests] == tokens
    assert invoke("trace", "log.jsonl", cwd=tmp_path)[1] == (tmp_path / "t.jsonl").read_text()


def test_a_bad_log_line_is_one_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"created": 1, "prompt": "x"}\n{"created": 1}\n')
    code, out, err = invoke("trace", path)
    assert (code, out) == (2, "")
    assert f"{path}:2: prompt: text, token ids or messages are needed" in one_line(err)


def test_failures_are_counted_by_kind_and_shown_in_the_report_and_on_the_page():
    failures = [Failure(f"Token id {number} is out of vocabulary", 400) for number in range(5)]
    failures += [Failure("<b>away</b>"), Failure("Token id 7 is out of vocabulary", 422)]
    records = [
        Record(number, "a", 0.0, 0.0, 0.0, 10, 0, 0, failure) for number, failure in enumerate([*failures, None])
    ]
    described = Described("live", "t", 0, None, 1, 16, Arrivals(), {"target": "http://a"})
    report = build_report(described, ReplayResult(records, {}, ["a"]), 0.5)
    assert (report["failed"], report["requests"]) == (7, 8)
    assert report["failures"] == [
        {"status": 400, "message": "Token id 0 is out of vocabulary", "count": 5},
        {"status": None, "message": "<b>away</b>", "count": 1},
        {"status": 422, "message": "Token id 7 is out of vocabulary", "count": 1},
    ]
    page = render(build_page(report))
    assert "Token id 0 is out of vocabulary" in page
    assert "&lt;b&gt;away" in page
    assert "<b>away" not in page


def test_a_browser_finds_nothing_wrong_with_the_page(start_browser, tmp_path):
    failed = Record(9, "worker-with-a-long-name", 0.0, 0.0, 0.0, 10, 0, 0, Failure("no answer", 500))
    served = [Record(number, "w", number, number + 0.2, number + 1.0, 64, 32, 8) for number in range(9)]
    described = Described("live", "t", 0, None, 1, 16, Arrivals(), {"target": "http://a"})
    with start_browser() as browser:
        for name, records in (("nothing-served", [failed]), ("whole", [failed, *served])):
            path = tmp_path / f"{name}.html"
            path.write_text(render(build_page(build_report(described, ReplayResult(records, {}, ["w"]), 0.5))))
            for look in LOOKS:
                with browser.open(path, look) as page:
                    assert page.problems() == []


def test_kinds_of_failures_are_bounded():
    rows = count_failures(Failure(chr(ord("a") + kind % 26) * (1 + kind // 26)) for kind in range(100))
    assert len(rows) == 20
    assert rows[-1] == {"status": None, "message": "other failures", "count": 81}


def test_a_server_that_refuses_says_so_on_the_terminal(tmp_path):
    trace = write_trace(tmp_path / "t.jsonl", requests=3)
    with refusing_server("[red]Token id 9 is out of vocabulary") as url:
        args = ("--target", url, "--rate", 1000, "--json", "r.json")
        code, out, err = invoke("replay", trace, *args, cwd=tmp_path)
    assert (code, err) == (1, "")
    assert "failed: 3 x status 400: [red]Token id 9 is out of vocabulary" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["failures"] == [{"status": 400, "message": "[red]Token id 9 is out of vocabulary", "count": 3}]
    assert report["settings"] == {
        "target": url, "model": "m", "max_model_len": None, "vocabulary": None, "shortened": 0
    }  # fmt: skip
