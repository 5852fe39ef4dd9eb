"""The scripts that run on GitHub only, against a server that plays its API."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
JUNIT = (
    '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure/></testcase>'
    '<testcase name="c"><skipped/></testcase></testsuite></testsuites>'
)
SCHEDULED = [
    path.name
    for path in sorted((ROOT / ".github/workflows").glob("*.yml"))
    if "schedule" in (yaml.safe_load(path.read_text())[True] or {})
]


class Api:
    """A server that answers GET requests from `answers` and records everything else."""

    def __init__(self):
        self.answers = {}
        self.written = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                assert self.headers["Authorization"] == "Bearer secret"
                found = [answer for path, answer in api.answers.items() if path in self.path]
                self.answer(found[0] if found else [])

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                api.written.append((self.command, self.path.removeprefix("/repos/owner/name"), body))
                self.answer({})

            def do_PATCH(self):
                self.do_POST()

            def answer(self, body):
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def run(self, script, **environment):
        """(exit code, output) of a script of hack/ci."""
        done = subprocess.run(
            [sys.executable, ROOT / "hack/ci" / script],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "GITHUB_API_URL": f"http://127.0.0.1:{self.server.server_port}",
                "GITHUB_REPOSITORY": "owner/name",
                "GITHUB_TOKEN": "secret",
                "GITHUB_STEP_SUMMARY": "",
                **environment,
            },
        )
        assert done.stderr == ""
        return done.returncode, done.stdout


@pytest.fixture
def api():
    with Api() as running:
        yield running


def verdict(api, folder, results, **environment):
    needs = json.dumps({name: {"result": result, "outputs": {}} for name, result in results.items()})
    return api.run("verdict.py", NEEDS=needs, ARTIFACTS=str(folder), OUT=str(folder / "out"), **environment)


def test_the_verdict_has_a_line_per_stage_with_what_its_reports_say(api, tmp_path):
    (tmp_path / "unit").mkdir()
    (tmp_path / "unit/junit.xml").write_text(JUNIT)
    (tmp_path / "benchmark/out").mkdir(parents=True)
    report = {
        "verdict": {"passed": False, "text": "failed: 3 jobs compared", "reasons": ["job costs 1.30 of the base"]}
    }
    (tmp_path / "benchmark/out/report.json").write_text(json.dumps(report))
    (tmp_path / "chaos").mkdir()
    (tmp_path / "chaos/report.json").write_text(
        json.dumps({"verdict": "passed", "counts": {"passed": 9, "skipped": 2}})
    )
    code, text = verdict(
        api, tmp_path, {"unit": "failure", "benchmark": "failure", "chaos": "success", "e2e": "skipped"}
    )
    assert code == 1
    assert "## Complete testing: failed" in text
    assert "|unit|**failed**|3 tests, 1 failed, 1 skipped: b|" in text
    assert "|benchmark|**failed**|failed: 3 jobs compared; job costs 1.30 of the base|" in text
    assert "|chaos|passed|passed: 9 passed, 2 skipped|" in text
    assert "|e2e|**did not run**||" in text
    assert (tmp_path / "out/verdict.md").read_text() in text
    assert api.written == []


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_the_verdict_fails_unless_every_stage_succeeded(api, tmp_path, result):
    assert verdict(api, tmp_path, {"unit": "success", "e2e": "success"})[0] == 0
    assert verdict(api, tmp_path, {"unit": "success", "e2e": result})[0] == 1


def test_a_pull_request_has_one_comment_with_the_verdict(api, tmp_path):
    assert verdict(api, tmp_path, {"unit": "success"}, PULL_REQUEST="7")[0] == 0
    [(method, path, first)] = api.written
    assert (method, path) == ("POST", "/issues/7/comments")
    api.answers["/issues/7/comments"] = [{"id": 3, "body": "unrelated"}, {"id": 4, "body": first["body"]}]
    verdict(api, tmp_path, {"unit": "failure"}, PULL_REQUEST="7")
    method, path, second = api.written[1]
    assert (method, path) == ("PATCH", "/issues/comments/4")
    assert "failed" in second["body"]
    assert len(api.written) == 2


def workflow_runs(age, conclusion="success"):
    created = (datetime.now(UTC) - age).isoformat()
    run = {"created_at": created, "status": "completed", "conclusion": conclusion, "html_url": "https://example.org/1"}
    return {"workflow_runs": [run]}


def answer_all(api, answer):
    api.answers = {f"/actions/workflows/{name}/runs": answer for name in SCHEDULED} | api.answers


def test_recent_successful_runs_raise_no_alarm(api):
    answer_all(api, workflow_runs(timedelta(hours=20)))
    assert api.run("alarm.py") == (0, "")
    assert api.written == []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"workflow_runs": []}, "nightly.yml has never run on its schedule"),
        (workflow_runs(timedelta(days=3)), "nightly.yml last ran on its schedule 3 days"),
        (workflow_runs(timedelta(hours=1), "failure"), "nightly.yml ended with failure"),
    ],
)
def test_a_missing_or_failed_run_opens_one_issue(api, answer, problem):
    api.answers["/actions/workflows/nightly.yml/runs"] = answer
    for name in SCHEDULED:
        api.answers.setdefault(f"/actions/workflows/{name}/runs", workflow_runs(timedelta(hours=1)))
    code, text = api.run("alarm.py")
    assert code == 1
    assert text.startswith(problem)
    [(method, path, issue)] = api.written
    assert (method, path) == ("POST", "/issues")
    assert problem in issue["body"]
    api.answers["/issues?state=open"] = [{"number": 5, "title": issue["title"]}]
    assert api.run("alarm.py")[0] == 1
    assert api.written[1][:2] == ("POST", "/issues/5/comments")


def test_the_issue_is_closed_once_everything_ran(api):
    answer_all(api, workflow_runs(timedelta(hours=1)))
    api.answers["/issues?state=open"] = [{"number": 5, "title": "Scheduled workflows need attention"}]
    assert api.run("alarm.py")[0] == 0
    assert api.written[-1] == ("PATCH", "/issues/5", {"state": "closed"})


def test_each_benchmark_run_adds_a_line_to_the_trend(api, tmp_path):
    report = {
        "head": "abc",
        "fingerprint": {"cpu": "x"},
        "verdict": {"passed": True},
        "gate": {"samples": {"job": {"base": [9.0], "head": [1.0, 3.0, 2.0]}}},
        "groups": [{"name": "index", "figures": [{"name": "ingest", "value": 7.5}]}],
    }
    (tmp_path / "report.json").write_text(json.dumps(report))
    places = {"REPORT": str(tmp_path / "report.json"), "TREND": str(tmp_path / "deep/trend.jsonl")}
    for _ in range(2):
        assert api.run("trend.py", **places)[0] == 0
    lines = [json.loads(line) for line in (tmp_path / "deep/trend.jsonl").read_text().splitlines()]
    assert [line["median_cost"] for line in lines] == [{"job": 2.0}] * 2
    assert lines[0]["figures"] == {"index: ingest": 7.5}
    assert lines[0]["fingerprint"] == {"cpu": "x"}
