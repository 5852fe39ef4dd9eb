"""The service as a process: flags, HTTP API, publishers file, shutdown."""

import http.client
import json
import signal
import socket
import subprocess
import sys

import pytest
import structlog
import yaml
from service_helpers import BLOCK, DEADLINE_S, MODEL, START_S, ScriptedPublisher

from kvsync_indexer.main import main
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import wait_until


@pytest.fixture(autouse=True)
def logging_as_before():
    """`main` configures structlog for the process; the captured stream it is given does not outlive the test."""
    yield
    structlog.reset_defaults()


class Client:
    def __init__(self, port):
        self.port = port

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
            connection.request(method, path, data, {"content-type": "application/json"})
            response = connection.getresponse()
            text = response.read()
            kind = response.headers.get_content_type()
            return response.status, json.loads(text) if kind == "application/json" else text
        finally:
            connection.close()

    def ok(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        assert status == 200, (status, answer)
        return answer

    def publishers(self):
        return {row["name"]: row for row in self.ok("GET", "/v1/publishers")["publishers"]}

    def up(self):
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False


class Running:
    def __init__(self, tmp_path, entries, *flags):
        self.file = tmp_path / "publishers.yaml"
        self.write(entries)
        self.log = tmp_path / "indexer.log"
        self.client = Client(free_port())
        command = [sys.executable, "-m", "kvsync_indexer.main", "--host", "127.0.0.1", "--core", "python"]
        command += ["--port", str(self.client.port), "--publishers", str(self.file), *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log)

    def write(self, entries):
        self.file.write_text(entries if isinstance(entries, str) else yaml.safe_dump(entries))

    def logged(self):
        return self.log.read_text()

    def stop(self, signum=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(15)


@pytest.fixture
def pubs():
    made = [ScriptedPublisher(), ScriptedPublisher()]
    yield made
    for each in made:
        each.close()


@pytest.fixture
def service(tmp_path, pubs):
    running = Running(tmp_path, [entry(pubs[0], "pod-0"), entry(pubs[1], "pod-1")])
    try:
        wait_until("the service is ready", running.client.up, deadline_s=START_S)
        yield running
    finally:
        assert running.stop() == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A service for tests that only ask; its two publishers hold two blocks each."""
    pubs = [ScriptedPublisher(), ScriptedPublisher()]
    for pub in pubs:
        pub.store(2)
    running = Running(tmp_path_factory.mktemp("shared"), [entry(pubs[0], "pod-0"), entry(pubs[1], "pod-1")])
    try:
        wait_until("the service is ready", running.client.up, deadline_s=START_S)
        yield running
    finally:
        assert running.stop() == 0
        for pub in pubs:
            pub.close()


def entry(pub, name, **more):
    return {"name": name, "model": MODEL, "endpoint": pub.endpoint, "replay_endpoint": pub.replay_endpoint, **more}


def test_match_publishers_blocks_digest(service, pubs):
    client = service.client
    tokens = list(range(70000, 70000 + 3 * BLOCK))
    hashes = pubs[0].store(3, tokens)
    pubs[1].store(1, tokens[:BLOCK])
    wait_until(
        "every block is applied",
        lambda: [row["blocks"] for row in client.publishers().values()] == [3, 1],
        deadline_s=DEADLINE_S,
    )
    answer = client.ok("POST", "/v1/match", {"model": MODEL, "token_ids": [*tokens, 1, 2]})
    assert answer["block_size"] == BLOCK
    assert answer["query_blocks"] == 3
    assert [(row["publisher"], row["matched_blocks"], row["matched_tokens"]) for row in answer["matches"]] == [
        ("pod-0", 3, 12),
        ("pod-1", 1, 4),
    ]
    assert answer["matches"][0]["tiers"] == {"GPU": 3}
    assert answer["matches"][0]["state"] == "live"
    row = client.publishers()["pod-0"]
    assert (row["state"], row["last_seq"], row["lag"], row["incomplete"]) == ("live", 0, 0, False)
    assert row["block_size"] == BLOCK
    lines = client.ok("GET", "/v1/publishers/pod-0/blocks").splitlines()
    assert {json.loads(line)["hash"] for line in lines} == set(hashes)
    digest = client.ok("GET", "/v1/publishers/pod-0/digest")["digests"]
    assert digest == [{"rank": 0, "group_idx": None, "medium": "GPU", "count": 3, "digest": pubs[0].digest().hex()}]


def test_context_and_restriction(service, pubs):
    client = service.client
    tokens = list(range(BLOCK))
    pubs[0].store(1, tokens)
    pubs[1].store(1, tokens)
    wait_until(
        "every block is applied",
        lambda: all(row["blocks"] == 1 for row in client.publishers().values()),
        deadline_s=DEADLINE_S,
    )

    def matched(**more):
        answer = client.ok("POST", "/v1/match", {"model": MODEL, "token_ids": tokens, **more})
        return {row["publisher"]: row["matched_blocks"] for row in answer["matches"]}

    assert matched() == {"pod-0": 1, "pod-1": 1}
    assert matched(publishers=["pod-1"]) == {"pod-1": 1}
    assert matched(limit=1) == {"pod-0": 1}
    assert matched(lora="adapter") == {"pod-0": 0, "pod-1": 0}
    assert matched(cache_salt="salt") == {"pod-0": 0, "pod-1": 0}
    assert matched(extra_keys=[["image", 0]]) == {"pod-0": 0, "pod-1": 0}
    assert client.ok("POST", "/v1/match", {"model": "other", "token_ids": tokens})["matches"] == []


def test_publisher_that_died_is_listed_and_not_matched(service, pubs):
    client = service.client
    tokens = list(range(BLOCK))
    pubs[0].store(1, tokens)
    wait_until("the block is applied", lambda: client.publishers()["pod-0"]["blocks"] == 1, deadline_s=DEADLINE_S)
    ports = pubs[0].ports
    pubs[0].close()

    def row():
        answer = client.ok("POST", "/v1/match", {"model": MODEL, "token_ids": tokens})
        return next(row for row in answer["matches"] if row["publisher"] == "pod-0")

    wait_until("the publisher is distrusted", lambda: row()["state"] != "live", deadline_s=DEADLINE_S)
    assert row()["matched_blocks"] == 0
    pubs[0] = ScriptedPublisher(*ports)
    wait_until("the publisher is live again", lambda: row()["state"] == "live", deadline_s=DEADLINE_S)
    assert row()["matched_blocks"] == 0


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 422, ["truncated"]),
        (b"\xff", 422, []),
        ({"token_ids": [1]}, 422, ["model"]),
        ({"model": MODEL, "token_ids": ["a"]}, 422, ["int", "token_ids[0]"]),
        ({"model": MODEL, "token_ids": [-1]}, 422, ["token"]),
        ({"model": MODEL, "token_ids": [1 << 32]}, 422, ["token"]),
        ({"model": MODEL, "token_id": [1]}, 422, ["token_id", "did you mean token_ids?"]),
        ({"model": MODEL}, 422, ["token_ids", "prompt", "messages"]),
        ({"model": MODEL, "token_ids": [1], "prompt": "x"}, 422, ["exactly one"]),
        ({"model": MODEL, "prompt": "text"}, 422, ["http_url"]),
    ],
)
def test_bad_match_requests(shared, body, status, words):
    got, answer = shared.client.ask("POST", "/v1/match", body)
    assert got == status
    message = answer["error"]["message"]
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_other_errors(shared):
    client = shared.client
    assert client.ask("GET", "/v1/match")[0] == 405
    assert client.ask("GET", "/nothing")[0] == 404
    assert client.ask("GET", "/v1/publishers/nobody/blocks")[0] == 404
    assert client.ask("GET", "/v1/publishers/nobody/digest")[0] == 404
    assert client.ask("POST", "/v1/audit", {"publishers": ["nobody"]})[0] == 404
    report = {"publisher": "pod-0", "predicted_tokens": 32, "cached_tokens": 16}
    assert client.ok("POST", "/v1/predictions", report)["error"] == 0.5
    assert client.ask("POST", "/v1/predictions", {**report, "publisher": "nobody"})[0] == 404
    for number in ("-1", "1e309", "9" * 400, "4294967296"):
        poisoned = json.dumps({**report, "cached_tokens": "N"}).replace('"N"', number).encode()
        assert client.ask("POST", "/v1/predictions", poisoned)[0] == 422
    assert client.ask("POST", "/v1/predictions", b"[" * 50_000)[0] == 422
    assert client.ask("POST", "/v1/audit", b" " * (1 << 21))[0] == 413
    assert b"kvsync_indexer_prediction_requests_total" in client.ok("GET", "/metrics")
    assert 'prediction_over_tokens_total{publisher="pod-0"} 16.0' in client.ok("GET", "/metrics").decode()
    assert client.ask("POST", "/v1/audit", {"wait": 1})[0] == 422
    assert client.ask("POST", "/v1/audit", {"wait_quiet_s": -1})[0] == 422


def test_health_metrics_and_audit_without_ground_truth(shared):
    client = shared.client
    wait_until("every block is applied", lambda: client.publishers()["pod-0"]["blocks"] == 2, deadline_s=DEADLINE_S)
    assert client.ok("GET", "/healthz")["ok"] is True
    ready = client.ok("GET", "/readyz")
    assert (ready["ready"], ready["core"], ready["publishers"], ready["live"]) == (True, "python", 2, 2)
    metrics = client.ok("GET", "/metrics").decode()
    assert 'kvsync_indexer_publisher_state{publisher="pod-0",state="live"} 1.0' in metrics
    assert 'kvsync_indexer_gaps_total{publisher="pod-0"} 0.0' in metrics
    assert 'kvsync_indexer_publisher_blocks{publisher="pod-0"} 2.0' in metrics
    assert "kvsync_indexer_event_visible_seconds_bucket" in metrics
    report = client.ok("POST", "/v1/audit")
    assert [audit["verdict"] for audit in report["publishers"]] == ["no_ground_truth"] * 2
    assert report["equal"] is False


def test_publishers_file_is_followed(service, pubs):
    client = service.client
    pubs[0].store(1)
    service.write([entry(pubs[0], "pod-0")])
    wait_until("one publisher is left", lambda: list(client.publishers()) == ["pod-0"], deadline_s=DEADLINE_S)
    service.write("- {name: pod-0, modle: x}")
    wait_until("the bad file is logged", lambda: "publishers_file_kept" in service.logged(), deadline_s=DEADLINE_S)
    assert "did you mean model?" in service.logged()
    assert list(client.publishers()) == ["pod-0"]
    service.write([entry(pubs[0], "pod-0"), entry(pubs[1], "pod-1/3")])
    row = wait_until("the new publisher is listed", lambda: client.publishers().get("pod-1/3"), deadline_s=DEADLINE_S)
    assert (row["pod"], row["rank"]) == ("pod-1", 3)


def test_interrupt_ends_with_130(tmp_path, pubs):
    running = Running(tmp_path, [entry(pubs[0], "pod-0")])
    wait_until("the service is ready", running.client.up, deadline_s=START_S)
    assert running.stop(signal.SIGINT) == 130


@pytest.mark.parametrize(
    ("flags", "content", "words"),
    [
        ([], None, ["no source of publishers"]),
        (["--publishers", "absent.yaml"], None, ["absent.yaml", "No such file"]),
        ([], "- {name: a}", ["entry 1", "model"]),
        ([], "- {name: a, model: m, endpoint: 'udp://x'}", ["entry 1", "endpoint", "udp://x", "tcp://host:port"]),
        ([], "- {name: a, model: m, endpoint: 'tcp://*:1'}", ["wildcard", "bind: true"]),
        ([], "- {name: a, model: m, endpoint: 'tcp://h:1', rank: -1}", ["rank", "-1"]),
        ([], "[{name: a, model: m, endpoint: 'tcp://h:1'}, {name: a, model: m, endpoint: 'tcp://h:1'}]", ["twice"]),
        ([], "a: [", ["not YAML"]),
        ([], "7", ["list of publishers"]),
        (["--stale-after", "soon"], "[]", ["--stale-after", "soon", "10s"]),
        (["--core", "fast"], "[]", ["--core", "fast", "python"]),
        (["--port", "99999"], "[]", ["--port", "99999", "65535"]),
        (["--port", "{taken}"], "[]", ["--port {taken}", "in use"]),
        (["--discover", "dns"], "[]", ["--discover", "dns", "kubernetes"]),
        (["--stale"], "[]", ["--stale"]),
    ],
)
def test_bad_start_is_one_line_and_exit_2(tmp_path, monkeypatch, capsys, flags, content, words):
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ["--host", "127.0.0.1", *(flag.replace("{taken}", port) for flag in flags)]
        if content is not None:
            (tmp_path / "p.yaml").write_text(content)
            arguments += ["--publishers", str(tmp_path / "p.yaml")]
        assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 1, lines
    for word in words:
        assert word.replace("{taken}", port) in lines[0], lines[0]


def test_bad_start_as_a_process(tmp_path):
    command = [sys.executable, "-m", "kvsync_indexer.main", "--port", "0"]
    command += ["--publishers", str(tmp_path / "absent.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "absent.yaml" in done.stderr
