"""Planted bugs in a running system: the suite must fail, and for the reason that each bug gives it.

`planted/planted_bugs.py` has at least one bug for each of I1 to I13. By default the system runs as processes of this
machine. With KVSYNC_PLANTED_IMAGE it runs on the cluster, and the image of the index is the one that
`planted/run.sh` builds. The pure mutants are in testkit/tests/test_testkit_chaos_judging.py.
"""

import os
import sys
from pathlib import Path

import pytest

from kvsync_testkit.chaos.cluster import ClusterBackend
from kvsync_testkit.chaos.faults import choose_faults
from kvsync_testkit.chaos.local import LocalBackend
from kvsync_testkit.chaos.runner import run_fault
from kvsync_testkit.chaos.verdicts import Injection, Verdict
from kvsync_testkit.kube import Kube, find_kubeconfig

PLANTED = Path(__file__).with_name("planted")
sys.path.insert(0, str(PLANTED))
from planted_bugs import BUGS  # noqa: E402

IMAGE = os.environ.get("KVSYNC_PLANTED_IMAGE", "")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def cluster():
    backend = ClusterBackend(Kube(find_kubeconfig(Path.cwd())), "kvsync-planted")
    backend.index_image = IMAGE
    yield backend
    backend.stop()


@pytest.fixture
def backend_with(request, tmp_path):
    """A function that returns a system into whose index and router a bug is planted."""
    if IMAGE:
        cluster = request.getfixturevalue("cluster")

        def planted(name):
            cluster.index_env = {"KVSYNC_PLANTED_BUG": name}
            return cluster

        yield planted
        return
    started = []

    def planted_here(name):
        started.append(LocalBackend(tmp_path / "logs", {"PYTHONPATH": str(PLANTED), "KVSYNC_PLANTED_BUG": name}))
        return started[-1]

    yield planted_here
    for backend in started:
        backend.stop()


def test_every_invariant_has_a_bug():
    assert {bug.invariant for bug in BUGS.values()} == {f"I{number}" for number in range(1, 14)}


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_caught(name, backend_with, tmp_path):
    bug = BUGS[name]
    (fault,) = choose_faults(bug.fault)
    report = run_fault(backend_with(name), fault, tmp_path, patience_s=15.0)
    assert report.injection is Injection.CONFIRMED, report.reason
    assert report.verdict is Verdict.FAILED
    assert report.invariants.get(bug.invariant) == "violated", report.reason
    assert any(part.startswith(bug.invariant) and bug.says in part for part in report.reason.split("; ")), report.reason


STUBBORN_ROUTER = '''
"""A router that sends every request to one engine, whether it lives or not."""
import http.client, http.server, json, sys, urllib.request
host, port, index = sys.argv[1], int(sys.argv[2]), sys.argv[3]

class Handler(http.server.BaseHTTPRequestHandler):
    chosen = ""

    def do_GET(self):
        rows = json.load(urllib.request.urlopen(index + "/v1/publishers"))["publishers"]
        Handler.chosen = Handler.chosen or rows[0]["http_url"]
        body = json.dumps({"endpoints": [{"name": row["name"], "healthy": True} for row in rows]}).encode()
        self.answer(200, body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            link = http.client.HTTPConnection(Handler.chosen.split("//")[1], timeout=2)
            link.request("POST", self.path, body, {"content-type": "application/json"})
            answer = link.getresponse()
            self.answer(answer.status, answer.read())
        except OSError:
            self.answer(502, b"{}")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer((host, port), Handler).serve_forever()
'''


class WithoutReplay(LocalBackend):
    """The index is given a replay endpoint at which nothing listens."""

    def publisher_row(self, name):
        row = super().publisher_row(name)
        host = row["replay_endpoint"].rpartition(":")[0]
        return {**row, "replay_endpoint": f"{host}:9"}


class WithStubbornRouter(LocalBackend):
    """The router never leaves the engine that it chose first, which is the one that is deleted."""

    def router_command(self, address, port, index_url):
        return [sys.executable, "-c", STUBBORN_ROUTER, address, str(port), index_url]


class WithoutInjection(LocalBackend):
    """The backend says that it injected a fault, and did nothing."""

    def apply(self, fault):
        pass


def outcome_of(kind, fault, tmp_path):
    backend = kind(tmp_path / "logs")
    try:
        (chosen,) = choose_faults(fault)
        return run_fault(backend, chosen, tmp_path)
    finally:
        backend.stop()


def test_an_index_without_replay_is_caught_losing_blocks(tmp_path):
    report = outcome_of(WithoutReplay, "events-dropped", tmp_path)
    assert report.injection is Injection.CONFIRMED
    assert report.verdict is Verdict.FAILED
    assert report.invariants["I3"] == "violated"
    assert "only in the engine" in report.reason


def test_a_router_that_clings_to_a_deleted_engine_is_caught(tmp_path):
    report = outcome_of(WithStubbornRouter, "pod-kill", tmp_path)
    assert report.injection is Injection.CONFIRMED
    assert report.verdict is Verdict.FAILED
    assert report.invariants["I13"] == "violated"
    assert "ended with status 502" in report.reason


@pytest.mark.parametrize("fault", ["container-kill", "events-duplicated"])
def test_a_backend_that_injects_nothing_is_caught(fault, tmp_path):
    report = outcome_of(WithoutInjection, fault, tmp_path)
    assert report.injection is Injection.MISMATCH
    assert report.verdict is Verdict.FAILED
    assert "the affected pair is healthy" in report.reason
