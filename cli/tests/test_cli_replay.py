"""Replay offline and live, synthetic workloads, request logs."""

import json

import pytest
from cli_helpers import invoke, one_line, write_trace

from kvsync.errors import TraceError
from kvsync.load.arrivals import Arrivals, arrival_times
from kvsync.load.ideal import compute_ideal
from kvsync.load.prompts import make_prompts
from kvsync.load.request_log import convert_log
from kvsync.load.synthetic import Synthetic, make_trace, read_synthetic
from kvsync.load.trace import TraceRequest, read_trace
from kvsync.replay.offline import OfflineSettings, ideal_hit_ratio, replay_offline
from kvsync.replay.records import Record, ReplayResult, by_worker, distribution_ms, imbalance
from kvsync.replay.report import Described, build_report


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
    result, ideal = replay_offline(requests, arrival_times(requests, arrivals, seed), None, settings)
    described = Described("offline", "t", seed, policy, 1, 16, arrivals, settings.describe())
    return build_report(described, result, ideal)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return read_trace(write_trace(tmp_path_factory.mktemp("t") / "t.jsonl", requests=60, prefixes=9, prefix_blocks=4))


@pytest.mark.parametrize("policy", ["kv", "least_request", "round_robin", "random"])
def test_one_seed_gives_one_report_and_every_policy_serves_all(shared, policy):
    first, second = offline(shared, policy, seed=5), offline(shared, policy, seed=5)
    assert json.dumps(first) == json.dumps(second)
    assert (first["requests"], first["failed"]) == (60, 0)
    assert sum(row["requests"] for row in first["workers"].values()) == 60
    assert 0 < first["hit_ratio"] <= first["ideal_hit_ratio"]


def test_another_seed_differs(shared):
    assert offline(shared, "random", seed=1) != offline(shared, "random", seed=2)


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
        (("t.jsonl", "--offline", "--latency", "quadratics"), 2, "did you mean 'quadratic'"),
        (("t.jsonl", "--offline", "--rate", "1", "--poisson", "1"), 2, "exclude each other"),
        (("t.jsonl", "--target", "http://127.1.202.1:9"), 1, "http://127.1.202.1:9"),
    ],
)
def test_bad_input_is_one_line(tmp_path, args, code, says):
    write_trace(tmp_path / "t.jsonl", requests=2)
    found, out, err = invoke("replay", *args, cwd=tmp_path)
    assert (found, out) == (code, "")
    assert says in one_line(err)


def test_ideal_from_ids_equals_ideal_from_tokens(shared):
    assert ideal_hit_ratio(shared, 16) == pytest.approx(compute_ideal(make_prompts(shared, 1), 16).hit_ratio)


def test_arrivals():
    requests = [TraceRequest(ms, 512, 1, (1,)) for ms in (0, 1000, 3000)]
    assert arrival_times(requests, Arrivals(speed=2.0), 0) == [0, 0.5, 1.5]
    assert arrival_times(requests, Arrivals("rate", rate=4.0), 0) == [0, 0.25, 0.5]
    first = arrival_times(requests, Arrivals("poisson", rate=4.0), 1)
    assert first == arrival_times(requests, Arrivals("poisson", rate=4.0), 1)
    assert first != arrival_times(requests, Arrivals("poisson", rate=4.0), 2)
    assert first == sorted(first)


def test_numbers_of_a_report():
    records = [
        Record(0, "a", 0.0, 0.1, 0.5, 100, 40, 10),
        Record(1, "b", 0.0, 0.3, 1.0, 100, 0, 10),
        Record(2, "a", 0.0, 0.0, 0.0, 100, 0, 0, ok=False),
    ]
    result = ReplayResult(records, {1000: 99, 5000: 1}, ["a", "b"])
    report = build_report(Described("live", "t", 0, None, 1, 16, Arrivals(), {}), result, 0.5)
    assert (report["requests"], report["failed"], report["hit_ratio"]) == (3, 1, 0.2)
    assert report["tokens_per_s"] == 220.0
    assert report["ttft_ms"] == {"mean": 200.0, "p50": 100.0, "p90": 300.0, "p95": 300.0, "p99": 300.0, "max": 300.0}
    assert report["itl_ms"] == {"mean": 1.04, "p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 1.0, "max": 5.0}
    assert imbalance(by_worker(result)) == round(110 / 90, 4)
    assert distribution_ms({})["p99"] is None


def test_synthetic_sessions_share_prefixes_and_grow():
    workload = Synthetic(requests=400, prefixes={"count": 5, "tokens": 2048, "zipf": 1.2}, turns={"mean": 3})
    trace = make_trace(workload, 7)
    assert len(trace) == 400
    assert trace == make_trace(workload, 7)
    assert trace != make_trace(workload, 8)
    assert [request.timestamp_ms for request in trace] == sorted(request.timestamp_ms for request in trace)
    assert all(len(request.hash_ids) == -(-request.input_tokens // 512) for request in trace)
    starts = [request.hash_ids[:4] for request in trace]
    counts = sorted((starts.count(start) for start in set(starts)), reverse=True)
    assert len(counts) == 5
    assert counts[0] > 2 * counts[-1]
    grown = [request for request in trace if len(request.hash_ids) > 8]
    assert any(request.hash_ids[:6] == other.hash_ids[:6] for request in grown for other in trace if other != request)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("requests: 0", "requests = 0"),
        ("prefixs: {}", "unknown field prefixs; did you mean prefixes?"),
        ("turns: {mena: 3}", "unknown field turns.mena; did you mean mean?"),
        ("[", "line 1"),
    ],
)
def test_a_bad_workload_is_one_line(tmp_path, text, says):
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(TraceError) as caught:
        read_synthetic(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_request_log_becomes_a_trace(tmp_path):
    system = "You are a helpful assistant. " * 200
    lines = [
        {"timestamp": 1700000000, "body": {"model": "m", "prompt": system + "one", "max_tokens": 9}},
        {
            "created_at": "2023-11-14T22:13:22+00:00",
            "request": {"model": "m", "prompt": system + "two"},
            "response": {"usage": {"completion_tokens": 5}},
        },
        {"time": 1700000003000, "model": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        {"created": 1700000004, "model": "m", "cache_salt": "s", "prompt": system + "one"},
        {"created": 1700000005, "prompt": list(range(1024)), "max_completion_tokens": 0},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "t.jsonl").write_text("\n".join(convert_log(path)))
    first, second, third, salted, ids = read_trace(tmp_path / "t.jsonl")
    assert [request.timestamp_ms for request in (first, second, third, salted, ids)] == [0, 2000, 3000, 4000, 5000]
    assert [request.output_tokens for request in (first, second, third, salted, ids)] == [9, 5, 16, 16, 0]
    assert len(first.hash_ids) > 2
    assert second.hash_ids[:-1] == first.hash_ids[:-1]
    assert second.hash_ids[-1] != first.hash_ids[-1]
    assert set(salted.hash_ids).isdisjoint(first.hash_ids)
    assert (ids.input_tokens, len(ids.hash_ids)) == (1024, 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ("[]", "a JSON object is needed"),
        ('{"prompt": "x"}', "timestamp: is missing"),
        ('{"created": 1}', "prompt: text, token ids or messages are needed"),
        ('{"created": "yesterday", "prompt": "x"}', "created = 'yesterday'"),
    ],
)
def test_a_bad_log_line_is_named(tmp_path, line, says):
    path = tmp_path / "log.jsonl"
    path.write_text('{"created": 1, "prompt": "x"}\n' + line + "\n")
    code, out, err = invoke("trace", path)
    assert (code, out) == (2, "")
    assert f"{path}:2: " in one_line(err)
    assert says in err
