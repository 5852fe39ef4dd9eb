"""The whole of `bench_run.py` with real processes on one quick job."""

import json
import subprocess
import sys
from pathlib import Path

import bench_environment as place
import pytest

SCRIPT = Path(__file__).resolve().parent / "bench_run.py"
JOB = "index_memory_64_holders"
"""A job that measures memory, since the comparison of CPU times may fail by chance on a busy machine."""

pytestmark = pytest.mark.timeout(600)


def bench(out, *arguments):
    command = [sys.executable, SCRIPT, "--out", out, "--baseline", out / "baseline.json", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True)


def read(out):
    return json.loads((out / "report.json").read_text())


def test_a_revision_passes_against_itself_and_is_recorded_and_used_again(tmp_path):
    tree = place.read_head()
    done = bench(tmp_path, "--aa", "--only", JOB)
    assert done.returncode == 0, done.stdout
    document, baseline = read(tmp_path), json.loads((tmp_path / "baseline.json").read_text())
    assert document["verdict"]["passed"]
    assert set(document["gate"]["samples"]) == {JOB}
    assert {len(costs) for costs in document["gate"]["samples"][JOB].values()} == {10}
    assert baseline["fingerprint"] == document["fingerprint"]
    assert set(baseline["aa_spread"]) == set(baseline["median_cost"]) == {JOB}
    assert "recorded at load" not in done.stdout

    again = bench(tmp_path, "--canary", "--plant", "4.0", "--only", JOB)
    assert again.returncode == 0, again.stdout
    assert "recorded at load" in again.stdout
    (comparison,) = read(tmp_path)["gate"]["comparisons"]
    assert comparison["failed"]
    assert comparison["ratio"] > 1.2
    assert comparison["limit"] == pytest.approx(1 + max(0.1, 3 * baseline["aa_spread"][JOB]))
    assert place.read_head() == tree, "a run leaves the checkout as it was"


def test_figures_alone_need_no_base(tmp_path):
    done = bench(tmp_path, "--no-gate", "--quick", "--only", "replay", "--only", "tier-link")
    assert done.returncode == 0, done.stderr
    document = read(tmp_path)
    assert [group["figures"][0]["name"] for group in document["groups"]] == [
        "replay, 1 worker, round_robin",
        "completion of a transfer, 10 on the link",
    ]
    assert all(figure["value"] > 0 for group in document["groups"] for figure in group["figures"])
    assert document["base"] == ""
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--rounds", "9"], "rounds: 9"),
        (["--aa", "--canary"], "exclude each other"),
        (["--only", "nonsense"], "nonsense"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, arguments, line):
    done = bench(tmp_path, *arguments)
    assert done.returncode == 2
    assert line in done.stderr


def test_a_base_that_is_not_there_is_one_line(tmp_path):
    done = bench(tmp_path, "--base", "no-such-revision", "--no-figures", "--only", JOB)
    assert done.returncode == 1
    assert "no-such-revision" in done.stderr
    assert "Traceback" not in done.stderr
