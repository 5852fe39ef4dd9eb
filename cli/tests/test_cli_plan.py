"""`kvsync plan`: its sweep, its verdicts, its report, and wrong use."""

import json

import pytest
from cli_helpers import invoke, one_line, write_trace

from kvsync.plan.objective import Limit, make_rows, pareto_front, parse_duration_ms, smallest
from kvsync.plan.outcome import Task, Work, combine, run_task
from kvsync.plan.page import build_page
from kvsync.plan.sweep import Configuration, Fixed, Sweep
from kvsync_pages import render
from kvsync_testkit.browser import LOOKS
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.trace import read_trace


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return write_trace(tmp_path_factory.mktemp("plan") / "t.jsonl", requests=60, prefixes=9, prefix_blocks=4)


def outcome(ttft_p95=100.0, failed=0, duration_s=3600.0, **values):
    latencies = {
        name: dict.fromkeys(("p50", "p90", "p95", "p99"), ttft_p95) for name in ("ttft_ms", "itl_ms", "e2e_ms")
    }
    return {"failed": failed, "duration_s": duration_s, "tokens": 1_000_000, "hit_ratio": 0.5, **latencies, **values}


def configuration(policy="kv", engines=2, blocks=1000, host=0):
    return Configuration(policy, engines, blocks, host, 0, 0.3, 0.05)


def test_weights_vary_for_kv_only_and_a_disk_needs_a_host():
    sweep = Sweep(("kv", "random"), (1, 2), (100,), (0, 50), (0, 70), (0.1, 0.2), (0.05,))
    found = sweep.configurations()
    assert len(found) == len(set(found))
    assert sum(one.policy == "kv" for one in found) == 2 * 3 * 2
    assert sum(one.policy == "random" for one in found) == 2 * 3
    assert all(one.host_blocks for one in found if one.disk_blocks)


def test_the_smallest_has_the_fewest_engines_then_the_least_memory():
    limits = [Limit("ttft_ms", "p95", 500.0)]
    outcomes = {
        configuration(engines=1): outcome(900.0),
        configuration(engines=3, blocks=500): outcome(100.0),
        configuration(engines=2, blocks=9000): outcome(200.0),
        configuration(engines=2, blocks=800): outcome(450.0),
        configuration("round_robin", engines=2): outcome(100.0, failed=1),
        configuration("round_robin", engines=4): outcome(500.0),
    }
    found = smallest(make_rows(outcomes, limits, 1.0))
    assert found["kv"].configuration == configuration(engines=2, blocks=800)
    assert found["round_robin"].configuration.engines == 4
    assert smallest(make_rows({configuration(): outcome(501.0)}, limits, 1.0)) == {}


def test_the_front_has_no_row_that_another_beats():
    outcomes = {
        configuration(engines=1): outcome(900.0),
        configuration(engines=2): outcome(300.0),
        configuration("random", engines=2): outcome(400.0),
        configuration(engines=3): outcome(300.0),
        configuration(engines=4): outcome(10.0, failed=2),
    }
    rows = make_rows(outcomes, [], 2.5)
    assert [row.configuration.engines for row in pareto_front(rows)] == [1, 2]
    assert [row.cost for row in rows] == [2.5, 5.0, 5.0, 7.5, 10.0]


@pytest.mark.parametrize(("text", "expected"), [("500ms", 500.0), ("1.5s", 1500.0), ("2s", 2000.0)])
def test_durations(text, expected):
    assert parse_duration_ms(text) == expected


@pytest.mark.parametrize("text", ["500", "0ms", "-1s", "5m", "", "1e3ms"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="a duration such as 500ms"):
        parse_duration_ms(text)


def test_over_seeds_ratios_are_means_and_percentiles_the_worst():
    one, other = outcome(100.0, failed=1, hit_ratio=0.25), outcome(300.0, failed=2, hit_ratio=0.75)
    combined = combine([one, other])
    assert (combined["hit_ratio"], combined["failed"], combined["ttft_ms"]["p95"]) == (0.5, 3, 300.0)


def test_an_outcome_is_that_of_the_replay(trace):
    work = Work(read_trace(trace).requests, Arrivals(), Fixed())
    kv = run_task(work, Task(configuration("kv", 3, 2000), 0))
    turns = run_task(work, Task(configuration("round_robin", 3, 2000), 0))
    assert kv["hit_ratio"] > turns["hit_ratio"]
    assert turns["regret_ratio"] is None
    assert 0 <= kv["regret_ratio"] < 0.2
    assert kv == run_task(work, Task(configuration("kv", 3, 2000), 0))


def plan(trace, tmp_path, *flags, name="plan"):
    files = (tmp_path / f"{name}.json", tmp_path / f"{name}.html")
    return invoke("plan", trace, "--json", files[0], "--html", files[1], *flags), *files


def test_a_sweep_is_the_same_in_one_process_and_in_several(trace, tmp_path):
    flags = ("--engines", "1,2", "--seeds", "0,1", "--blocks", "300,2000", "--ttft-p95", "60s")
    alone, alone_file, _ = plan(trace, tmp_path, *flags, "--jobs", "1", name="alone")
    together, together_file, page = plan(trace, tmp_path, *flags, "--jobs", "2", name="together")
    assert (alone[0], together[0]) == (0, 0), together
    assert alone_file.read_bytes() == together_file.read_bytes()
    report = json.loads(alone_file.read_text())
    assert len(report["configurations"]) == 2 * 2 * 2
    assert set(report["smallest"]) == {"kv", "round_robin"}
    assert "kv: 1 engine for ttft-p95 up to 60000 ms" in together[1]
    assert page.read_text().lower().startswith("<!doctype html>")


def test_an_objective_that_nothing_meets_is_exit_code_1(trace, tmp_path):
    result, json_file, _ = plan(trace, tmp_path, "--engines", "1", "--ttft-p99", "1ms", "--jobs", "1")
    assert result[0] == 1
    assert "no configuration of this sweep meets ttft-p99 up to 1 ms" in result[1]
    assert json.loads(json_file.read_text())["smallest"] == {}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--engines", "0"), "--engines"),
        (("--engines", "1,x"), "--engines"),
        (("--policies", "kv,best"), "best"),
        (("--ttft-p95", "5"), "500ms"),
        (("--ray", "auto", "--jobs", "2"), "--jobs and --ray"),
        (("--rate", "1", "--poisson", "1"), "--rate and --poisson"),
        (("--latency", "fast"), "fast"),
        (("--latency", "/nowhere/x.json"), "/nowhere/x.json"),
    ],
)
def test_wrong_use(trace, flags, words):
    jobs = () if "--jobs" in flags else ("--jobs", "1")
    code, _, err = invoke("plan", trace, *jobs, *flags)
    assert code == 2
    assert words in one_line(err)


def test_a_browser_finds_nothing_wrong_with_the_page(start_browser, trace, tmp_path):
    _, json_file, _ = plan(trace, tmp_path, "--engines", "1,2,4", "--ttft-p95", "5s", "--jobs", "1")
    path = tmp_path / "page.html"
    path.write_text(render(build_page(json.loads(json_file.read_text()))))
    with start_browser() as browser:
        for look in LOOKS:
            with browser.open(path, look) as page:
                assert page.problems() == []
