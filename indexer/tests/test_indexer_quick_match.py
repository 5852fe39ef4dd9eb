"""The quick way through a match (native scan of the body, native rows, no ASGI) says what the usual way says."""

import asyncio
import contextlib
import json
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service_helpers import BLOCK, DEADLINE_S, MODEL, ScriptedPublisher

from kvsync_indexer.core import make_core
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.service.match import MatchEndpoint, Matcher
from kvsync_indexer.service.quick import QuickMatch
from kvsync_indexer.sync import State
from kvsync_indexer.tokenizing import Tokenizers
from kvsync_testkit.processes import Index, stopping
from kvsync_testkit.waiting import wait_until

PROMPT = list(range(40, 40 + 6 * BLOCK))


def spec(name, pub, **more):
    return PublisherSpec(name=name, model=MODEL, endpoint=pub.endpoint, replay_endpoint=pub.replay_endpoint, **more)


class Both:
    """One ingest asked both ways."""

    def __init__(self, ingest):
        self.now = 1e6
        self.quick = QuickMatch(ingest, lambda: self.now)
        self.endpoint = MatchEndpoint(Matcher(ingest, Tokenizers(clock=time.monotonic), lambda: self.now))

    def usual(self, body):
        """(status, JSON) of the ASGI endpoint."""
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        asyncio.run(self.endpoint({"method": "POST"}, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])

    def agree(self, body):
        """Whether the quick way answered; if it did, as the usual one."""
        quick = self.quick.answer(body)
        if quick is not None:
            assert (200, json.loads(quick)) == self.usual(body), body
        return quick is not None


@pytest.fixture(scope="module")
def both():
    """Two that hold something, one that is away, one that takes no traffic, one with a name that needs escapes."""
    pytest.importorskip("kvsync_native", reason="the quick way is the native core's", exc_type=ImportError)
    pubs = [ScriptedPublisher() for _ in range(4)]
    pubs[0].store(6, PROMPT)
    pubs[1].store(2, PROMPT[: 2 * BLOCK])
    ingest = Ingest(make_core("native"))
    ingest.start()
    try:
        ingest.add(spec("b/1", pubs[0], rank=1))
        ingest.add(spec("a", pubs[1]))
        ingest.add(spec('q"\\\u00e9\n', pubs[2]))
        ingest.add(spec("off", pubs[3], ready=False))
        away = PublisherSpec(name="away", model=MODEL, endpoint="tcp://127.0.0.1:9")
        ingest.add(away)
        wait_until(
            "four publishers are live",
            lambda: [link.machine.state for link in ingest.links()].count(State.LIVE) == 4,
            deadline_s=DEADLINE_S,
        )
        wait_until("every block is applied", lambda: ingest.core.stats().blocks == 8, deadline_s=DEADLINE_S)
    finally:
        ingest.stop()  # what it knew last stays: nothing moves between two questions
        for each in pubs:
            each.close()
    return Both(ingest)


def body_of(**fields):
    return json.dumps({"model": MODEL, "token_ids": PROMPT, **fields}).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {}, {"limit": 1}, {"limit": 0}, {"limit": -3}, {"limit": 10**30}, {"limit": None}, {"token_ids": []},
        {"token_ids": [1, 2]}, {"lora": "x"}, {"lora": 7}, {"cache_salt": "s"}, {"token_ids": [2**32 - 1] * 9},
        {"extra_keys": [["k", 0], None]}, {"prompt": None, "messages": None, "publishers": None},
    ],
)  # fmt: skip
def test_the_usual_query_is_answered_the_same(both, fields):
    assert both.agree(body_of(**fields)) is (fields.get("limit") != 10**30 or both.usual(body_of(**fields))[0] == 200)


def test_ages_are_the_same_to_the_microsecond(both):
    for step in (0.0, 1e-6, 0.1, 0.25, 1 / 3, 12345.678901, 1e-7):
        both.now += step
        assert both.agree(body_of())


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b'"token_ids"', body_of(model="other"), body_of(model=3), body_of(prompt="x"),
        body_of(token_ids=None), body_of(token_ids=[2**32]), body_of(token_ids=[-1]), body_of(token_ids=[1.5]),
        body_of(token_ids=["1"]), body_of(token_ids=[True]), body_of(token_ids=[[1]]), body_of(publishers=["a"]),
        body_of(unknown=1), body_of(limit="3"), body_of(extra_keys=[3]), body_of(messages=[]), body_of() + b"x",
        body_of()[:-1], b'{"token_ids":[1,2],"token_ids":[3],"model":"test-model"}',
        b'{"token_ids":[1,2],"token\\u005fids":[],"model":"test-model"}', b'{"token_ids":[01],"model":"test-model"}',
        b'{"token_ids":[1],"model":"\xff"}', b'{"token_ids":[1]"model":"test-model"}', b'{"model":nul,"token_ids":[1]}',
    ],
)  # fmt: skip
def test_everything_else_is_left_to_the_usual_way(both, body):
    assert not both.agree(body)


SPACE = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])
INTEGER = st.one_of(
    st.integers(0, 2**32 - 1), st.integers(0, 200_000), st.sampled_from([0, 9, 10, 2**32, 10**9, 10**20, -1])
)


@st.composite
def bodies(draw):
    """JSON objects much like requests, with odd spacing, orders, values and repeats."""
    values = {
        "model": st.just(json.dumps(MODEL)),
        "token_ids": st.lists(INTEGER, max_size=40).map(
            lambda numbers: "[" + ",".join(f"{draw(SPACE)}{number}{draw(SPACE)}" for number in numbers) + "]"
        ),
        "limit": st.sampled_from(["0", "2", "null", "1.0", "-1"]),
        "cache_salt": st.one_of(st.text(max_size=5).map(json.dumps), st.just('"]}\\",["')),
        "lora": st.sampled_from(["null", '"x"', "3", '"token_ids"']),
        "extra_keys": st.sampled_from(["null", '[["token_ids",[1]],null]', '[[{"token_ids":[1]}]]', "[]"]),
        "prompt": st.sampled_from(["null", '"text"']),
    }
    names = ["model", "token_ids", *draw(st.lists(st.sampled_from(sorted(values)), max_size=3))]
    members = [
        f'{draw(SPACE)}"{name}"{draw(SPACE)}:{draw(SPACE)}{draw(values[name])}{draw(SPACE)}'
        for name in draw(st.permutations(names))
    ]
    return f"{draw(SPACE)}{{{','.join(members)}}}{draw(SPACE)}".encode()


CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


@settings(max_examples=400, deadline=None, suppress_health_check=CHECKS)
@given(body=bodies())
def test_any_request_is_answered_the_same(both, body):
    both.agree(body)


@settings(max_examples=600, deadline=None, suppress_health_check=CHECKS)
@given(data=st.data())
def test_any_damage_is_seen_the_same(both, data):
    body = bytearray(data.draw(bodies()))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body)))
        change = data.draw(st.sampled_from(["insert", "delete", "replace"]))
        piece = data.draw(st.sampled_from([*b'{}[],:"\\0 1-.e', 0, 200]))
        body[at : at + (change != "insert")] = b"" if change == "delete" else bytes([piece])
    both.agree(bytes(body))


# -- on the wire ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    pub = ScriptedPublisher()
    pub.store(6, PROMPT)
    entry = {"name": "pod", "model": MODEL, "endpoint": pub.endpoint, "replay_endpoint": pub.replay_endpoint}
    process = Index(entry, folder=tmp_path_factory.mktemp("quick"))  # the wire is the same with any core
    with stopping(process):
        process.live()
        wait_until(
            "every block is applied",
            lambda: process.ok("GET", "/v1/publishers")["publishers"][0]["blocks"] == 6,
            deadline_s=DEADLINE_S,
        )
        yield process
    pub.close()


def request(body, *, method="POST", path="/v1/match", version="1.1", headers=()):
    head = [f"{method} {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


class Wire:
    """A socket that reads whole answers."""

    def __init__(self, index):
        self.socket = socket.create_connection(("127.0.0.1", index.port), timeout=20)
        self.data = b""

    def _more(self):
        piece = self.socket.recv(1 << 16)
        assert piece, "closed"
        self.data += piece

    def answer(self):
        """(status, headers, body)."""
        while b"\r\n\r\n" not in self.data:
            self._more()
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        size = int(headers.get("content-length", 0))
        while len(self.data) < size:
            self._more()
        body, self.data = self.data[:size], self.data[size:]
        return int(lines[0].split()[1]), headers, body

    def matched(self):
        status, _, body = self.answer()
        return status, [row["matched_blocks"] for row in json.loads(body).get("matches", [])]

    def closed(self):
        return not self.data and self.socket.recv(1) == b""


@pytest.fixture
def wire(index):
    made = Wire(index)
    with contextlib.closing(made.socket):
        yield made


def test_a_body_in_any_pieces(wire):
    whole = request(body_of())
    for size in (1, 7, 100, len(whole) - 1):
        for at in range(0, len(whole), size):
            wire.socket.sendall(whole[at : at + size])
        assert wire.matched() == (200, [6])


def test_requests_in_one_piece_are_answered_in_order(wire):
    short = body_of(token_ids=PROMPT[:BLOCK])
    health = request(b"", method="GET", path="/healthz")
    wire.socket.sendall(
        request(body_of()) + health + request(short) + request(b"{") + request(body_of(publishers=["pod"])) + health
    )
    assert wire.matched() == (200, [6])
    assert json.loads(wire.answer()[2])["ok"] is True
    assert wire.matched() == (200, [1])
    assert wire.matched() == (422, [])
    assert wire.matched() == (200, [6])
    assert json.loads(wire.answer()[2])["ok"] is True


def test_a_body_in_chunks_and_a_query_string(wire):
    body = body_of()
    head = b"POST /v1/match HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    wire.socket.sendall(head + chunks + b"0\r\n\r\n" + request(body, path="/v1/match?x=1"))
    assert wire.matched() == wire.matched() == (200, [6])


def test_connections_end_when_they_should(index):
    for asked in ({"headers": ["connection: close"]}, {"version": "1.0"}):
        wire = Wire(index)
        with contextlib.closing(wire.socket):
            wire.socket.sendall(request(body_of(), **asked))
            assert wire.matched() == (200, [6])
            assert wire.closed()


def test_expectations_methods_and_long_bodies(wire):
    body = body_of()
    wire.socket.sendall(request(body, headers=["expect: 100-continue"])[: -len(body)])
    assert wire.answer()[0] == 100
    wire.socket.sendall(body)
    assert wire.matched() == (200, [6])
    wire.socket.sendall(request(body, method="PUT"))
    assert wire.answer()[0] == 405
    long = body_of(token_ids=PROMPT + [7] * 400_000)
    assert len(long) > 1 << 20
    wire.socket.sendall(request(long))
    assert wire.matched() == (200, [6])
    wire.socket.sendall(request(body))
    assert wire.matched() == (200, [6])


def test_it_is_counted(index, wire):
    before = index.metric("kvsync_indexer_match_seconds_count")
    wire.socket.sendall(request(body_of()))
    assert wire.matched() == (200, [6])
    assert index.metric("kvsync_indexer_match_seconds_count") == before + 1


@pytest.fixture
def followed():
    """Two that are asked both ways while the publisher `p` lives."""
    pytest.importorskip("kvsync_native", reason="the quick way is the native core's", exc_type=ImportError)
    pubs = [ScriptedPublisher()]
    ingest = Ingest(make_core("native"))
    ingest.start()
    yield pubs, ingest, Both(ingest)
    ingest.stop()
    pubs[-1].close()


def test_a_row_names_the_epoch_of_the_engine_that_answers_now(followed):
    pubs, ingest, both = followed

    def epoch():
        quick = both.quick.answer(body_of())
        rows = both.usual(body_of())[1]["matches"]
        assert quick is None or json.loads(quick)["matches"] == rows
        return rows[0]["epoch"] if rows and rows[0]["state"] == "live" else None

    (pub,) = pubs
    pub.store(6, PROMPT)
    pub.store(1)
    ingest.add(spec("p", pub))
    wait_until("the first epoch", lambda: epoch() == "stream#0", deadline_s=DEADLINE_S)
    pub.close()
    pubs.append(pub := ScriptedPublisher(*pub.ports))
    pub.store(2, PROMPT[: 2 * BLOCK])
    wait_until("the epoch after a restart", lambda: epoch() == "stream#1", deadline_s=DEADLINE_S)
    ingest.add(spec("p", pub, epoch="uid/0/0"))
    wait_until("the epoch that discovery names", lambda: epoch() == "uid/0/0#1", deadline_s=DEADLINE_S)
    ingest.add(spec("p", pub, epoch="uid/1/0"))
    wait_until("the epoch that discovery names next", lambda: epoch() == "uid/1/0#2", deadline_s=DEADLINE_S)
