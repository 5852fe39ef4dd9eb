"""Networks and child processes of a local run: two runs share nothing, and no process is left behind."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import aiohttp
import pytest

from kvsync.errors import StartFailedError
from kvsync.local.addresses import HTTP_PORT, Network, PortTakenError, claim_network
from kvsync.local.process import Process, Spec, last_line, stop_all
from kvsync.local.supervisor import Supervisor, wait_http
from kvsync_testkit.waiting import wait_until


def python(name, tmp_path, code):
    return Spec(name, (sys.executable, "-c", textwrap.dedent(code)), tmp_path / "logs" / f"{name}.log")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with Path(f"/proc/{pid}/stat").open() as file:  # a zombie still has a pid
        return file.read().rpartition(")")[2].split()[0] != "Z"


def nothing(_network):
    return ()


def test_two_claims_never_share_a_network():
    first = claim_network(nothing)
    second = claim_network(nothing)
    try:
        assert first.prefix != second.prefix
        with pytest.raises(PortTakenError):
            Network.claim(first.prefix)
    finally:
        first.release()
        second.release()
    Network.claim(first.prefix).release()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.1.200.2", HTTP_PORT))
        taken.listen(1)
        with pytest.raises(PortTakenError, match=r"127\.1\.200\.2:8000 cannot be used: address already in use"):
            claim_network(lambda network: [(network.pod(1), HTTP_PORT)], ["127.1.200"])
        claim_network(lambda network: [(network.pod(0), HTTP_PORT)], ["127.1.200"]).release()


async def test_a_process_that_dies_at_start_is_one_line_with_its_last_words(tmp_path):
    process = Process(python("engine-9", tmp_path, "import sys; print('no such model'); sys.exit(3)"))
    process.start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(StartFailedError, match=r"engine-9 exited with code 3: no such model \(log: .*\)"):
            await wait_http(session, process, "http://127.1.201.1:9/", deadline_s=30)


async def test_a_process_that_never_answers_is_given_up(tmp_path):
    process = Process(python("index", tmp_path, "import time; time.sleep(60)"))
    process.start()
    try:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(StartFailedError, match="index is not ready after 0 s"):
                await wait_http(session, process, "http://127.1.201.1:9/", deadline_s=0.2)
    finally:
        process.kill()


def test_a_missing_program_is_one_line(tmp_path):
    with pytest.raises(StartFailedError, match="No such file"):
        Supervisor().start(Spec("x", ("/nowhere/kvsync-x",), tmp_path / "x.log"))


def test_stop_all_ends_those_that_do_not_listen(tmp_path):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    processes = [Process(python(name, tmp_path, deaf)) for name in ("a", "b")]
    for process in processes:
        process.start()
    wait_until("both up", lambda: all(last_line(process.spec.log) == "up" for process in processes), deadline_s=60)
    stop_all(processes, grace_s=0.1)
    assert [process.exit_code for process in processes] == [-signal.SIGKILL] * 2


def test_restart_appends_to_the_log(tmp_path):
    process = Process(python("a", tmp_path, "print('line')"))
    for _ in range(2):
        process.start()
        wait_until("ended", lambda: process.exit_code is not None, deadline_s=60)
    assert process.starts == 2
    assert process.spec.log.read_text() == "line\nline\n"


def test_killing_the_parent_kills_the_children(tmp_path):
    parent = f"""
        import sys, time
        from pathlib import Path
        from kvsync.local.process import Process, Spec
        argv = (sys.executable, "-c", "import time; time.sleep(60)")
        child = Process(Spec("c", argv, Path({str(tmp_path)!r}) / "c.log"))
        child.start()
        print(child.pid, flush=True)
        time.sleep(60)
    """
    started = subprocess.Popen([sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True)
    child = int(started.stdout.readline())
    assert alive(child)
    started.kill()
    started.wait()
    started.stdout.close()
    wait_until("child gone", lambda: not alive(child), deadline_s=60)


def test_supervisor_reports_only_unexpected_deaths(tmp_path):
    supervisor = Supervisor()
    supervisor.start(python("a", tmp_path, "raise SystemExit(1)"))
    wait_until("ended", lambda: supervisor["a"].exit_code is not None, deadline_s=60)
    supervisor.check(["a"])
    with pytest.raises(StartFailedError, match="a exited with code 1"):
        supervisor.check()
    supervisor.close()
