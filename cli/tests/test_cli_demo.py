"""A small demo as a user runs it, the commands that ask a demo left running, and the failures of a demo."""

import json
import shlex
import signal
import socket
import subprocess
from collections import Counter

import pytest
from cli_helpers import KVSYNC, descendants_mentioning, invoke, kvsync, one_line, write_trace

from kvsync.local import addresses
from kvsync_testkit.browser import LOOKS
from kvsync_testkit.waiting import wait_until

SMALL = ("--speed", "6")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Return (folder, exit code, stdout, stderr) of a whole demo that was left running."""
    folder = tmp_path_factory.mktemp("demo")
    trace = write_trace(folder / "trace.jsonl")
    code, out, err = kvsync("demo", "--trace", trace, *SMALL, "--seed", 3, "--out", "run", "--keep", cwd=folder)
    yield folder, code, out, err
    kvsync("stop", "--out", "run", cwd=folder)


@pytest.fixture(scope="module")
def report(demo):
    folder, code, out, err = demo
    assert code == 0, out + err
    return json.loads((folder / "run" / "report.json").read_text())


@pytest.fixture(scope="module")
def index_url(demo, report):
    return json.loads((demo[0] / "run" / "kept.json").read_text())["index_url"]


def test_report_has_every_key_that_outside_checks_read(report):
    assert (report["seed"], report["requests"]) == (3, 120)
    assert report["trace"].endswith("trace.jsonl")
    assert list(report["policies"]) == ["round_robin", "kv"]
    for policy in report["policies"].values():
        assert policy["failed"] == 0
        assert 0 < policy["hit_ratio"] <= report["ideal_hit_ratio"] < 1
        assert 0 < policy["ttft_ms"]["p50"] <= policy["ttft_ms"]["p95"] <= policy["ttft_ms"]["p99"]
    assert report["audit"]["publishers"] == 3
    assert report["audit"]["blocks"] > 0
    assert report["audit"]["differences"] == 0
    assert 0 < report["event_lag_ms"]["p50"] <= report["event_lag_ms"]["p99"]
    assert report["versions"]["index_core"] in ("python", "native")


def test_what_the_index_predicted_is_compared_with_what_the_engines_found(report):
    kv = report["policies"]["kv"]["predictions"]
    assert 0 < kv["exact"] <= kv["requests"] <= 120
    assert kv["predicted_tokens"] + kv["under_tokens"] - kv["over_tokens"] == kv["cached_tokens"] > 0
    assert not any(report["policies"]["round_robin"]["predictions"].values())


def test_kv_beats_round_robin_on_engines_that_are_left_alone(report):
    policies = report["policies"]
    assert policies["kv"]["hit_ratio"] > policies["round_robin"]["hit_ratio"]
    assert policies["round_robin"]["by_endpoint"] == {f"demo-engine-{number}": 40 for number in range(3)}
    assert [policy["moments"] for policy in policies.values()] == [[], []]
    assert "the comparison needs more requests" in report["note"]


def test_a_leg_of_its_own_has_the_kill(report):
    restart = report["restart"]
    assert restart["policy"] == "kv"
    assert restart["detected_s"] is not None
    assert restart["rebuilt"] is True
    assert Counter(text.rpartition(" ")[2] for _, text in restart["leg"]["moments"])["again"] == 1
    states = restart["leg"]["publishers"][restart["publisher"]]["state"]
    assert states[0] == states[-1] == "live"
    assert set(states) - {"live"}
    answers = restart["answers_after_kill"]
    assert answers["wrong"] == 0 <= answers["answers"]


def test_the_lag_is_in_milliseconds(report):
    curves = report["restart"]["leg"]["publishers"].values()
    assert any(lag_ms for curve in curves for lag_ms in curve["lag_ms"])


def test_every_request_has_a_reason_for_its_place(report):
    for leg in (*report["policies"].values(), report["restart"]["leg"]):
        assert sum(sum(reasons.values()) for reasons in leg["by_reason"].values()) == 120
    assert 0 < len(report["restart"]["examples"]) <= 8


def test_the_terminal_ends_with_the_headline_and_commands_that_work(demo, report):
    out = demo[2]
    assert "Wrong answers after a kill -9: 0 (" in out
    assert "Prefill work saved: " in out
    asked = next(step["command"] for step in report["next"] if " match " in step["command"])
    assert asked in out
    code, answer, err = invoke(*shlex.split(asked)[1:])
    assert (code, err) == (0, "")
    assert any("100%" in line for line in answer.splitlines() if line.startswith("demo-engine"))
    assert out.splitlines()[-1] == "report: run/report.html"


def test_a_browser_finds_nothing_wrong_with_the_page(start_browser, demo, report):
    page = demo[0] / "run" / "report.html"
    assert page.stat().st_size < 1_500_000
    with start_browser() as browser:
        for look in LOOKS:
            with browser.open(page, look) as opened:
                assert opened.problems() == []
                text = opened.dom.inner_text("main")
    for said in (
        "Every check passed.",
        "Wrong answers after a kill -9",
        "Trust state of each engine",
        "Who was chosen",
    ):
        assert said in text


def test_kept_demo_answers_match_and_audit(demo, index_url):
    folder = demo[0]
    code, out, err = invoke("match", "--index", index_url, "a prompt that nobody has sent, but long enough for a block")
    assert (code, err) == (0, "")
    assert "demo-engine-0" in out
    code, out, err = invoke("match", "--index", index_url, "--json", "--tokens", "1,2,3", cwd=folder)
    assert {row["publisher"] for row in json.loads(out)["matches"]} == {f"demo-engine-{number}" for number in range(3)}
    code, out, _ = invoke("audit", "--index", index_url, "--json")
    assert code == 0
    assert [row["verdict"] for row in json.loads(out)["publishers"]] == ["equal"] * 3


def test_match_finds_what_the_trace_left(demo, index_url):
    from kvsync_workload.prompts import make_prompts
    from kvsync_workload.trace import read_trace

    last = make_prompts(read_trace(demo[0] / "trace.jsonl").requests, 32)[-1]
    tokens = ",".join(map(str, last.token_ids))
    _, out, _ = invoke("match", "--index", index_url, "--json", "--tokens", tokens)
    best = json.loads(out)["matches"][0]
    assert best["matched_tokens"] == len(last.token_ids)


def test_kept_demo_is_replayed_against(demo, report, tmp_path):
    router = json.loads((demo[0] / "run" / "kept.json").read_text())["router_url"]
    trace = write_trace(tmp_path / "t.jsonl", requests=8)
    code, out, err = invoke(
        "replay", trace, "--target", router, "--scale", 32, "--rate", 50, "--json", "r.json", cwd=tmp_path
    )
    assert (code, err) == (0, ""), out
    live = json.loads((tmp_path / "r.json").read_text())
    assert (live["requests"], live["failed"]) == (8, 0)
    assert live["hit_ratio"] > 0.5
    assert sum(row["requests"] for row in live["workers"].values()) == 8
    assert live["itl_ms"]["p50"] is not None


def test_kept_demo_is_tailed_from_its_first_batch(report, index_url):
    survivor = next(number for number in range(3) if not report["restart"]["publisher"].endswith(f"-{number}"))
    host = index_url.removeprefix("http://").rpartition(".")[0] + f".{survivor + 1}"
    code, out, err = invoke(
        "tail", f"tcp://{host}:5557", "--replay", f"tcp://{host}:5558", "--count", 2, "--idle", 60, "--json"
    )
    assert (code, err) == (0, "")
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["kind"] for record in records] == ["event"] * 2
    assert records[0]["seq"] == 0
    assert records[0]["type"] == "BlockStored"
    assert records[0]["parent_block_hash"] is None


def test_a_second_demo_does_not_touch_a_kept_one(demo, index_url):
    code, _, err = invoke("demo", "--out", "run", cwd=demo[0])
    assert code == 2
    assert "still runs" in one_line(err)
    assert invoke("audit", "--index", index_url)[0] == 0


def test_stop_ends_a_kept_demo(demo, index_url):
    mark = index_url.removeprefix("http://").partition(":")[0]
    assert descendants_mentioning(mark)
    code, out, _ = kvsync("stop", "--out", "run", cwd=demo[0])
    assert (code, out) == (0, "run: 5 processes ended\n")
    assert descendants_mentioning(mark) == []
    code, _, err = invoke("audit", "--index", index_url)
    assert code == 1
    assert index_url in one_line(err)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--enginess", "3"), "--engines"),
        (("--engines", "0"), "--engines"),
        (("--policy", "kvv"), "allowed are kv, least_request, round_robin, random"),
        (("--trace", "none.jsonl"), "none.jsonl"),
        (("--trace", "bad.jsonl"), "bad.jsonl:2:"),
        (("--trace", "good.jsonl", "--blocks", "5"), "--blocks 5"),
        (("--out", "good.jsonl"), "is a file"),
        (("--trace", "good.jsonl", "--out", "/proc/x"), "--out /proc/x: cannot be used"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(tmp_path, args, says):
    good = write_trace(tmp_path / "good.jsonl", requests=3)
    (tmp_path / "bad.jsonl").write_text(good.read_text().splitlines()[0] + "\nnot json\n")
    code, out, err = invoke("demo", *args, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert says in one_line(err)
    assert not (tmp_path / "out" / "demo").exists()


def test_a_port_in_use_on_every_address_is_one_line(tmp_path, monkeypatch):
    trace = write_trace(tmp_path / "trace.jsonl", requests=3)
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        monkeypatch.setattr(addresses, "CLAIM_PORT", port)  # the port on which runs claim their network
        code, _, err = invoke("demo", "--trace", trace, cwd=tmp_path)
    assert code == 1
    assert f"{port} cannot be used: address already in use" in one_line(err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_report(tmp_path, number):
    trace = write_trace(tmp_path / "trace.jsonl", requests=500)
    folder = tmp_path / "run"
    command = [KVSYNC, "demo", "--trace", str(trace), "--engines", "1", "--speed", "1", "--out", str(folder)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    mark = str(folder / "round_robin" / "demo-index-0")
    wait_until("index started", lambda: descendants_mentioning(mark), deadline_s=60)
    started.send_signal(number)
    _, err = started.communicate(timeout=60)
    assert started.returncode == 128 + number
    assert "interrupted" in one_line(err)
    assert descendants_mentioning(mark) == []
    assert not list(folder.glob("*report*"))
