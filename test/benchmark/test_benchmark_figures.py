"""Figures that meet or miss their targets, and groups that fail."""

import sys

import bench_groups
import psutil
import pytest
from bench_figures import Figure, Group, run_group

from kvsync_testkit.waiting import wait_until


def group(tmp_path, program, limit_s=30.0):
    script = tmp_path / "script.py"
    script.write_text(program)
    return Group(
        "g",
        "A group",
        str(script),
        lambda document, core: [Figure(core, document["x"], "s", "cpu")],
        lambda core, quick: [],
        limit_s,
    )


def running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("more", "value", "target", "met"),
    [(True, 3.0, 2.0, True), (True, 1.0, 2.0, False), (False, 3.0, 2.0, False), (False, 2.0, 2.0, True)],
)
def test_a_figure_is_met_on_the_right_side(more, value, target, met):
    assert Figure("f", value, "s", "cpu", target, more).met is met
    assert Figure("f", value, "s", "cpu", None, more).met is None


def test_a_group_is_read_behind_whatever_it_logs(tmp_path):
    found = run_group(group(tmp_path, "print('a log line'); print('{\"x\": 2.5}')"), "python", quick=True)
    assert [(one.name, one.value) for one in found.figures] == [("python", 2.5)]
    assert not found.problem


def test_a_group_that_fails_says_why_and_keeps_its_figures(tmp_path):
    found = run_group(group(tmp_path, "print('{\"x\": 1}'); raise SystemExit('3 batches were lost')"), "c", quick=True)
    assert found.problem == "exit status 1: 3 batches were lost"
    assert len(found.figures) == 1


def test_output_that_cannot_be_read_is_a_problem(tmp_path):
    assert "KeyError: 'x'" in run_group(group(tmp_path, "print('{}')"), "c", quick=True).problem
    assert "unreadable output" in run_group(group(tmp_path, "print('nothing')"), "c", quick=True).problem


def test_a_group_that_does_not_end_is_a_problem_and_leaves_no_server_behind(tmp_path):
    program = f"""
import pathlib, subprocess, time
server = subprocess.Popen(["sleep", "600"])
partial = pathlib.Path({str(tmp_path / "partial")!r})
partial.write_text(str(server.pid))
partial.rename({str(tmp_path / "pid")!r})
time.sleep(600)
"""
    found = run_group(group(tmp_path, program, limit_s=5.0), "c", quick=True)
    assert found.problem == "not finished after 5 s"
    server = int((tmp_path / "pid").read_text())
    wait_until("the server has ended", lambda: not running(server), deadline_s=60)


def test_without_the_wheel_dynamo_is_left_out_which_is_no_failure(monkeypatch):
    monkeypatch.setenv("KVSYNC_DYNAMO_PYTHON", sys.executable)
    found = run_group(bench_groups.GROUPS["dynamo"], "auto", quick=True)
    if "dynamo" in sys.modules or found.figures:
        pytest.skip("ai-dynamo-runtime is installed here")
    assert "ai-dynamo-runtime is not installed" in found.left_out
    assert not found.problem
