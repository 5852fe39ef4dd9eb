"""The typed clients: what they ask, what they make of the answers, and their limits."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from kvsync_indexer.api import MatchRequest, PredictionReport
from kvsync_indexer.client import (
    AsyncIndexClient,
    IndexAnswerError,
    IndexClient,
    IndexClientError,
    IndexFailedError,
    IndexRefusedError,
    IndexTimeoutError,
    IndexUnreachableError,
    calls,
)
from kvsync_testkit.ports import free_port

MATCH = {"block_size": 4, "query_blocks": 2, "matches": [], "new": 1}
QUESTION = MatchRequest("m", token_ids=[1, 2])


class Server:
    """Answers every request with `status` and `body`, and remembers what it was asked."""

    def __init__(self):
        self.status, self.body, self.headers = 200, json.dumps(MATCH).encode(), {}
        self.asked = []
        self.hang = threading.Event()
        self.hang.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                size = int(self.headers.get("content-length") or 0)
                server.asked.append((self.command, self.path, self.rfile.read(size), dict(self.headers.items())))
                server.hang.wait()
                self.send_response(server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(server.body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(server.body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def close(self):
        self.hang.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    """A server that is not an index, but answers like one."""
    made = Server()
    yield made
    made.close()


class Blocking:
    """The asynchronous client with the methods of the other one, so that one test covers both."""

    def __init__(self, url, **settings):
        self._url, self._settings = url, settings

    def __getattr__(self, name):
        def call(*args):
            async def ask():
                async with AsyncIndexClient(self._url, **self._settings) as client:
                    return await getattr(client, name)(*args)

            return asyncio.run(ask())

        return call

    def close(self):
        pass


@pytest.fixture(params=[IndexClient, Blocking], ids=["sync", "async"])
def new_client(request):
    """A function that makes a client of one kind."""
    made = []

    def new(url, **settings):
        made.append(request.param(url, **settings))
        return made[-1]

    yield new
    for client in made:
        client.close()


def test_every_call_asks_what_the_api_describes(server, new_client):
    client = new_client(server.url + "/", token="secret")
    answers = {
        "match": (MATCH, [QUESTION]),
        "match_many": ({"results": [MATCH]}, [[QUESTION]]),
        "publishers": ({"publishers": [{"name": "b", "state": "live"}, {"name": "a", "state": "gap"}]}, []),
        "publisher": ({"name": "b", "state": "live"}, ["ns/b c"]),
        "digest": ({"publisher": "b", "digests": [], "last_seq": 1, "state": "live"}, ["b"]),
        "resync": ({"name": "b", "state": "live"}, ["b"]),
        "audit": ({"publishers": [], "audited": 0, "blocks": 0, "differences": 0, "equal": True}, [["b"], 2.0]),
        "report_prediction": ({"publisher": "b", "requests": 1, "error": 0.5}, [PredictionReport("b", 1, 2)]),
        "health": ({"ok": True, "problem": None}, []),
        "readiness": (
            {"ready": True, "core": "native", "publishers": 1, "live": 1, "problem": None, "discovery": {}}, [],
        ),
    }  # fmt: skip
    found = {}
    for name, (answer, arguments) in answers.items():
        server.body = json.dumps(answer).encode()
        found[name] = getattr(client, name)(*arguments)
    server.body = (
        b'{"hash": 1, "parent": null, "medium": "GPU", "group_idx": null, "copies": 1, "attached": true}\n' * 2
    )
    assert len(list(client.blocks("b"))) == 2
    assert client.metrics().startswith('{"hash"')
    assert client.snapshot() == server.body
    assert [row.name for row in found["publishers"]] == ["a", "b"]
    assert found["match"].query_blocks == found["match_many"][0].query_blocks == 2
    assert [f"{method} {path}" for method, path, _, _ in server.asked] == [
        "POST /v1/match", "POST /v1/match", "GET /v1/publishers", "GET /v1/publishers/ns%2Fb%20c",
        "GET /v1/publishers/b/digest", "POST /v1/publishers/b/resync", "POST /v1/audit", "POST /v1/predictions",
        "GET /healthz", "GET /readyz", "GET /v1/publishers/b/blocks", "GET /metrics", "GET /v1/snapshot",
    ]  # fmt: skip
    assert all(
        headers.get("Authorization", headers.get("authorization")) == "Bearer secret" for *_, headers in server.asked
    )
    assert json.loads(server.asked[1][2]) == {"queries": [{"model": "m", "token_ids": [1, 2]}]}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, IndexRefusedError), (422, IndexRefusedError), (500, IndexFailedError), (503, IndexFailedError)],
)
def test_an_error_says_what_the_index_says(server, new_client, status, kind):
    server.status, server.body = status, b'{"error": {"message": "no such thing", "field": "model"}}'
    with pytest.raises(kind, match=rf"/v1/match: status {status}: no such thing$") as caught:
        new_client(server.url).match(QUESTION)
    assert (caught.value.status, caught.value.problem, caught.value.field) == (status, "no such thing", "model")


def test_an_unready_index_is_an_answer(server, new_client):
    server.status = 503
    state = {"core": "native", "publishers": 0, "live": 0, "problem": None, "discovery": {}}
    server.body = json.dumps({"ready": False, "reasons": ["r"], **state}).encode()
    assert new_client(server.url).readiness().reasons == ["r"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff", b'{"matches": ' + b"[" * 100_000])
def test_another_answer_is_an_error(server, new_client, body):
    server.body = body
    with pytest.raises(IndexAnswerError, match="not the answer of an index") as caught:
        new_client(server.url).match(QUESTION)
    assert len(str(caught.value)) <= 300


def test_redirects_are_not_followed(server, new_client):
    server.status, server.headers = 302, {"location": f"{server.url}/elsewhere"}
    with pytest.raises(IndexAnswerError, match="status 302"):
        new_client(server.url).match(QUESTION)
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [200, 404])
def test_a_long_answer_is_not_read_to_its_end(server, new_client, monkeypatch, status):
    monkeypatch.setattr(calls, "MOST_ERROR_BYTES", 1000)
    server.status, server.body = status, b" " * (2 << 20)
    client = new_client(server.url)
    with pytest.raises(IndexAnswerError, match="bytes"):
        client.health()
    server.status, server.body = 200, b'{"ok": true, "problem": null}'
    assert client.health().ok


def test_a_silent_index_is_given_up(server, new_client):
    server.hang.clear()
    with pytest.raises(IndexTimeoutError, match=r"no answer within 0.2 s"):
        new_client(server.url, timeout_s=0.2).publishers()


def test_an_index_that_is_not_there(new_client):
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(IndexUnreachableError, match="nothing listens there") as caught:
        new_client(url).health()
    assert str(caught.value).startswith(url)


def test_a_connection_that_was_closed_meanwhile_is_opened_again(server):
    with IndexClient(server.url) as client:
        client.match(QUESTION)
        connection = client._connection
        connection.sock.shutdown(2)
        assert client.match(QUESTION).block_size == 4
    assert len(server.asked) == 2


def test_threads_share_a_client(server):
    with IndexClient(server.url) as client:
        threads = [threading.Thread(target=client.match, args=(QUESTION,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.asked) == 8


@pytest.mark.parametrize("url", ["localhost:8090", "ftp://h", "http://", ""])
def test_a_url_must_be_one(url):
    for kind in (IndexClient, AsyncIndexClient):
        with pytest.raises(ValueError, match="must be http://HOST"):
            kind(url)


def test_the_errors_are_one_tree():
    for kind in (IndexUnreachableError, IndexRefusedError, IndexFailedError, IndexAnswerError):
        assert issubclass(kind, IndexClientError)
    assert issubclass(IndexTimeoutError, IndexUnreachableError)


def test_the_blocking_client_loads_nothing_heavy():
    script = "import sys; from kvsync_indexer.client import IndexClient; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not {"aiohttp", "kubernetes", "pydantic", "starlette", "structlog", "uvicorn", "zmq"} & loaded


def test_a_real_index_answers(mock_engine, index):
    engine = mock_engine()
    running = index(engine)
    engine.complete(list(range(64)))
    running.settled()
    with IndexClient(running.url) as client:
        name = client.publishers()[0].name
        answer = client.match(MatchRequest(engine.model, token_ids=list(range(64))))
        assert [row.matched_blocks for row in answer.matches] == [4]
        assert client.match_many([MatchRequest(engine.model, token_ids=[1])])[0].error is None
        assert len(list(client.blocks(name))) == client.publisher(name).blocks == client.digest(name).digests[0].count
        assert client.audit().equal
        assert client.readiness().ready
        assert client.health().ok
        assert client.snapshot()
        assert "kvsync_indexer_publishers" in client.metrics()
        with pytest.raises(IndexRefusedError, match="no publisher is named 'x'"):
            client.publisher("x")
