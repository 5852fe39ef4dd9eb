"""The report has a row for every kind of result, and its page fetches nothing."""

import io
import json
from dataclasses import asdict

import bench_gate
import bench_page
import bench_report
import pytest
from bench_figures import Figure, Measured
from bench_groups import GROUPS
from bench_peers import PEERS
from rich.console import Console

from kvsync_testkit.browser import LOOKS

FINGERPRINT = {"cpu": "a <processor>", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11.0"}


@pytest.fixture
def document():
    slower = bench_gate.compare("slower", [1.0] * 10, [1.5] * 10, seed=1)
    figures = [
        Figure("ingest, 32 blocks per event", 4.9, "M blocks/s", "cpu", 6.0, True, 12.0, "bare loop", "by size", 32),
        Figure("ingest, 512 blocks per event", 8.5, "M blocks/s", "cpu", 8.0, True, 13.0, "bare loop", "by size", 512),
        Figure("health call, median", 123.4, "µs", "wall"),
    ]
    groups = [
        Measured("index", "Index core", figures),
        Measured("zmq", "ZMQ", problem="exit status 1: 3 batches <lost>"),
        Measured("dynamo", "Dynamo", left_out="not installed"),
    ]
    return {
        "title": "abc against def",
        "head": "abc",
        "base": "def",
        "rounds": 10,
        "fingerprint": FINGERPRINT | {"index_core": "native"},
        "duration_s": 12.0,
        "remarks": ["the machine is busy"],
        "baseline": {"revision": "x", "median_cost": {"slower": 1.0}, "figures": {"index: health call, median": 61.7}},
        "gate": {
            "comparisons": [asdict(slower) | {"failed": slower.failed}],
            "samples": {
                "slower": {"base": [1.0] * 10, "head": [1.5] * 10},
                "memory": {"head": [57.25] * 10},
            },
            "units": {"slower": "s/block", "memory": "B/block", "gone": "s/step"},
            "missing": {"memory": "no such module"},
            "broken": {"gone": "ImportError: x"},
            "canary": {"seen": True, "text": "A fifth measured 1.20: seen."},
        },
        "groups": [asdict(group) for group in groups],
        "verdict": {"passed": False, "text": "failed: 1 job", "reasons": ["slower costs 1.50 of the base"]},
    }


def test_a_job_has_a_row_whatever_became_of_it(document):
    slower, memory, gone = bench_report.job_rows(document)
    assert (slower["ratio"], slower["failed"], slower["base"], slower["trend"]) == ("1.500", True, "1 s/block", "1.50")
    assert (memory["head"], memory["base"], memory["failed"]) == ("57.2 B/block", "–", False)
    assert memory["note"] == "not in the base: no such module"
    assert gone["failed"]
    assert gone["note"] == "could not be run: ImportError: x"


def test_a_figure_shows_its_target_the_reference_the_trend_and_the_peers(document):
    short, long, health = bench_report.figure_rows(document["groups"][0], document["baseline"]["figures"])
    assert (short["value"], short["target"], short["met"]) == ("4.9 M blocks/s", "≥ 6", "no")
    assert short["reference"] == "0.41 × bare loop (12)"
    assert "Dynamo 1.41" in short["peers"]
    assert long["met"] == "yes"
    assert (health["met"], health["target"], health["trend"]) == ("–", "–", "2.00")


def test_the_terminal_shows_everything_and_the_verdict_last(document):
    console = Console(width=200, file=io.StringIO())
    bench_report.show(document, console)
    text = console.file.getvalue()
    for part in ("LEFT OUT: Dynamo: not installed", "FAILED: ZMQ", "note: the machine is busy", "not in the base"):
        assert part in text
    assert text.strip().splitlines()[-1] == "verdict: failed: 1 job"


def test_the_page_is_one_file_that_fetches_nothing_and_escapes(document, tmp_path):
    html = bench_page.write_page(document, tmp_path).read_text()
    assert "a &lt;processor&gt;" in html
    assert "3 batches &lt;lost&gt;" in html
    assert html.count("<figure") == 2
    for fetched in ("<script", "<img", "@import", 'href="http'):
        assert fetched not in html
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_run_of_figures_alone_has_a_page_too(document, tmp_path):
    document["gate"] |= {"comparisons": [], "samples": {}, "missing": {}, "broken": {}, "canary": None}
    document["base"] = ""
    html = bench_page.write_page(document, tmp_path).read_text()
    assert "<h2>Gate" not in html
    assert html.count("<figure") == 1


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_browser_finds_nothing_wrong_with_the_page(browser, document, tmp_path, look):
    with browser.open(bench_page.write_page(document, tmp_path), look) as page:
        assert page.problems() == []


def test_the_json_holds_every_sample(document, tmp_path):
    written = json.loads(bench_report.write_json(document, tmp_path).read_text())
    assert written == json.loads(json.dumps(document))
    assert len(written["gate"]["samples"]["slower"]["base"]) == 10


@pytest.mark.parametrize(
    ("cost", "unit", "text"),
    [
        (5.2e-6, "s/block", "5.2 µs/block"),
        (57.25, "B/block", "57.2 B/block"),
        (2.0, "s/step", "2 s/step"),
        (3e-10, "s/x", "0.3 ns/x"),
    ],
)
def test_costs_are_told_in_a_unit_that_can_be_read(cost, unit, text):
    assert bench_report.format_cost(cost, unit) == text


def test_what_peers_do_is_shown_beside_figures_that_exist():
    """Each name in `PEERS` is one that the readers produce; otherwise a renamed row would silently lose its peers."""
    document = {
        "ingest": [
            {"form": "map", "blocks_an_event": n, "events_a_payload": 1, "m_blocks_s": {"apply": 1.0}}
            for n in (1, 32, 512)
        ],
        "removal": [],
        "lookup": [
            {"blocks": 512, "publishers": 64, "from_keys_us": 1, "from_tokens_us": 1, "miss_us": 1}
            | {"from_tokens_every_row_read_us": 1}
        ],
        "memory": [{"holders": holders, "bytes_a_pair": 1} for holders in (1, 64)],
        "churn": {"m_blocks_s": 1, "resident_growth_bytes": 0},
        "publishers": [],
    }
    service = dict.fromkeys(("median_us", "p99_us", "server_cpu_us"), 1.0)
    flat = dict.fromkeys(("blocks_per_s", "blocks_per_cpu_s", "missing_batches", "gaps"), 1.0)
    rates = {"per_s": 1, "per_cpu_s": 1, "blocks_per_s": 1, "blocks_per_cpu_s": 1}
    replay = [(1, "round_robin"), (4, "round_robin"), (4, "kv")]
    made = {
        "index": document,
        "zmq": {key: {"flat_out_32": flat, "flat_out_512": flat} for key in ("results", "bare")},
        "http": {"results": {"match_8192_one_client": {"index": service, "bare": service}}},
        "streaming": {"pod": rates, "reference": rates, "rss_mib": {"idle": 1, "loaded": 1}},
        "pod-churn": {"reference": rates, "caches": {"1024": rates}},
        "replay": {"replay": [{"workers": n, "policy": policy, "requests_per_cpu_s": 1} for n, policy in replay]},
    }
    names = {figure.name for group, given in made.items() for figure in GROUPS[group].read(given, "native")}
    assert set(PEERS) <= names
