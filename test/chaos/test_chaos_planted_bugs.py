"""Planted bugs in a running system: the suite must fail, and for the reason that each bug gives it.

The pure mutants, one or more for each of I1 to I13, are in testkit/tests/test_testkit_chaos_judging.py.
"""

import sys

import pytest

from kvsync_testkit.chaos.faults import choose_faults
from kvsync_testkit.chaos.local import LocalBackend
from kvsync_testkit.chaos.runner import run_fault
from kvsync_testkit.chaos.verdicts import Injection, Verdict

pytestmark = pytest.mark.timeout(300)

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
