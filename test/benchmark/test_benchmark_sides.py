"""Both sides run the same kind of core, and a job that one side cannot run is reported."""

import subprocess
import sys
from pathlib import Path

import bench_environment as place
import click
import pytest
from bench_sides import JobError, Side, choose_core, take_samples

HERE = Path(sys.executable)
BARE = Path(sys.base_prefix) / "bin/python3"
NO_NATIVE = str(place.ROOT / "hack/no-native")

bare = pytest.mark.skipif(
    not BARE.exists() or subprocess.run([BARE, "-c", "import kvsync_events"], capture_output=True).returncode == 0,
    reason="needs an interpreter without our packages",
)


@bare
def test_a_base_that_cannot_run_a_job_is_told_and_the_head_is_measured():
    samples = take_samples(["index_miss"], Side(BARE), Side(HERE), 10)
    assert "No module named" in samples.missing["index_miss"]
    assert not samples.broken
    assert list(samples.costs["index_miss"]) == ["head"]
    assert len(samples.costs["index_miss"]["head"]) == 10


@bare
def test_a_head_that_cannot_run_a_job_is_a_failure():
    samples = take_samples(["index_miss"], Side(HERE), Side(BARE), 10)
    assert "No module named" in samples.broken["index_miss"]
    assert not samples.costs


def test_an_unknown_job_is_an_error_of_one_line():
    with pytest.raises(JobError, match="JOB: nonsense; one of "):
        Side(HERE).run("nonsense")


def test_without_the_native_core_the_run_says_which_one_it_measures(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", NO_NATIVE)
    core, remark = choose_core(Side(HERE), None, "auto")
    assert core == "python"
    assert "the native core is not installed" in remark
    with pytest.raises(click.ClickException, match="not installed here"):
        choose_core(Side(HERE), None, "native")


class Known(Side):
    """A side whose kind of core is given."""

    def read_core(self):
        return self.core


def test_cores_of_both_sides_are_the_same_kind():
    native, pure = Known(HERE, "native"), Known(HERE, "python")
    assert choose_core(native, native, "auto") == ("native", "")
    assert choose_core(native, pure, "auto")[0] == "python"
    assert "the base has no native core" in choose_core(native, pure, "auto")[1]
    assert choose_core(native, native, "python") == ("python", "")


def test_a_job_runs_on_the_core_that_was_chosen(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", NO_NATIVE)
    assert Side(HERE, "python").run("index_miss") > 0
    with pytest.raises(JobError, match="native"):
        Side(HERE, "native").run("index_miss")
