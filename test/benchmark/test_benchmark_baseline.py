"""The recorded baseline is written completely, read back, and not used on another machine."""

import json

import bench_baseline
import bench_gate
import pytest
from bench_environment import read_fingerprint

COSTS = {
    "steady": {"base": [1.0] * 10, "head": [1.01] * 10},
    "noisy": {"base": [1.0] * 10, "head": [0.94] * 10},
}


def record(path, fingerprint):
    return bench_baseline.record(
        path, COSTS, {"index: miss": 0.7}, fingerprint=fingerprint, revision="abc", load=0.1, rounds=10
    )


def test_what_is_recorded_is_read_back(tmp_path):
    path, here = tmp_path / "baseline.json", read_fingerprint("native")
    recorded = record(path, here)
    assert bench_baseline.read(path) == recorded
    assert recorded.median_cost == {"steady": 1.01, "noisy": 0.94}
    assert recorded.figures == {"index: miss": 0.7}
    assert list(tmp_path.iterdir()) == [path]


def test_the_spread_of_a_revision_with_itself_widens_later_limits(tmp_path):
    spread = record(tmp_path / "baseline.json", read_fingerprint("native")).aa_spread
    assert spread == {"steady": pytest.approx(0.01), "noisy": pytest.approx(0.06)}
    samples = [1.0] * 10
    assert bench_gate.compare("steady", samples, samples, 1, spread["steady"]).limit == pytest.approx(1.10)
    assert bench_gate.compare("noisy", samples, samples, 1, spread["noisy"]).limit == pytest.approx(1.18)


def test_a_baseline_of_this_machine_is_used(tmp_path):
    path, here = tmp_path / "baseline.json", read_fingerprint("native")
    record(path, here)
    used, said = bench_baseline.explain(bench_baseline.read(path), read_fingerprint("native"))
    assert used is not None
    assert "baseline of abc, recorded at load 0.10" in said


@pytest.mark.parametrize("name", ["cpu", "cores", "python", "index_core", "memory_gib"])
def test_a_baseline_of_another_machine_is_not_used_and_the_difference_is_named(tmp_path, name):
    path, here = tmp_path / "baseline.json", read_fingerprint("native")
    record(path, here | {name: "something else"})
    used, said = bench_baseline.explain(bench_baseline.read(path), here)
    assert used is None
    assert f"{name} 'something else', here {here[name]!r}" in said


def test_without_a_baseline_the_run_says_so(tmp_path):
    assert bench_baseline.read(tmp_path / "none.json") is None
    used, said = bench_baseline.explain(None, {})
    assert used is None
    assert "no baseline is recorded" in said


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"version": 1}', '{"version": 1, "fingerprint": {}, "more": 1}']
)
def test_a_damaged_baseline_is_one_line_with_the_file(tmp_path, text):
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(bench_baseline.BaselineError, match=r"baseline\.json: damaged .*record it again with --aa"):
        bench_baseline.read(path)


def test_a_baseline_of_another_form_is_refused(tmp_path):
    path = tmp_path / "baseline.json"
    record(path, {})
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(bench_baseline.BaselineError, match="version 99 instead of 1"):
        bench_baseline.read(path)
