"""Whole soak runs, shortened: one that finds a planted bug, and one that is interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kvsync_testkit.waiting import wait_until

SCRIPT = Path(__file__).parent / "run.py"
pytestmark = pytest.mark.timeout(300)


def start(out, *arguments):
    command = [sys.executable, SCRIPT, "--engines", "2", "--out", out, *arguments]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def read_report(out):
    assert "<html" in (out / "report.html").read_text()
    return json.loads((out / "report.json").read_text())


def test_a_batch_that_is_lost_without_a_trace_fails_the_run(tmp_path):
    process = start(tmp_path, "--minutes", "0.1", "--quiet-every", "1", "--only", "drop_unnumbered")
    output, _ = process.communicate()
    report = read_report(tmp_path)
    assert process.returncode == 1, output
    assert report["verdict"] == "failed"
    assert report["counts"]["faults"] >= 1
    assert report["faults"][0]["count"] > 0
    assert any("audit of engine-" in reason for reason in report["reasons"])
    assert any("I1 engine-" in reason for reason in report["reasons"])


def test_an_interrupted_run_reports_and_leaves_no_process(tmp_path):
    process = start(tmp_path, "--minutes", "60", "--quiet-every", "600", "--only", "kill_engine")
    assert "2 engines" in process.stdout.readline()
    children = wait_until("the processes run", lambda: psutil.Process(process.pid).children(), deadline_s=60)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    assert read_report(tmp_path)["verdict"] == "interrupted"
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
