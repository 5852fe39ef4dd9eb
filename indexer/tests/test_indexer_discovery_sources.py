"""`GET /kv_event_sources`: what the engine answers decides the endpoints, within bounds; without it arguments do."""

import contextlib
import json
import socket
import threading

import pytest
from discovery_helpers import Sink, pod
from service_helpers import DEADLINE_S

from kvsync_indexer.discovery import PodError, PodTable, pod_publishers
from kvsync_indexer.discovery.asking import Answer, SourceAsker
from kvsync_indexer.discovery.limits import ArgumentsError
from kvsync_indexer.discovery.sources import MAX_ANSWER_BYTES, fetch_sources, parse_sources
from kvsync_testkit.waiting import wait_until


def config(port, replay=None, **more):
    return {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://{more.pop('host', '*')}:{port}",
        "replay_endpoint": replay and f"tcp://*:{replay}",
        "buffer_steps": 10_000,
        "topic": "",
        **more,
    }


def sources(answer):
    return parse_sources(json.dumps(answer).encode())


class Engine:
    """Answers each connection with the given bytes, or with what a function does to the connection."""

    def __init__(self, answer):
        self.answer = answer
        self.asked = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                self.asked += 1
                with contextlib.suppress(OSError):
                    self.answer(connection) if callable(self.answer) else connection.sendall(self.answer)

    def close(self):
        self.socket.close()


@pytest.fixture
def engine():
    made = []

    def start(answer):
        made.append(Engine(answer))
        return made[-1]

    yield start
    for each in made:
        each.close()


def http(body, status="200 OK", head=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body


# -- the answer ---------------------------------------------------------------------------------------------------


def test_the_answer_decides_ports_ranks_and_topics():
    args = ["--model", "m", "-dp", "1", "--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"tcp://*:0"}']
    made = pod("p", notes={}, args=args)
    with pytest.raises(PodError, match=r"tcp://\*:0"):
        pod_publishers(made, qualified=False)
    listed = sources({"3": config(41001, host="10.0.0.1", topic="t"), "2": config(41000, 42000)})
    second, third = pod_publishers(made, qualified=False, sources=listed)
    assert (second.name, second.rank, second.http_rank) == ("p/2", 2, 0)
    assert (second.endpoint, second.replay_endpoint) == ("tcp://10.0.0.1:41000", "tcp://10.0.0.1:42000")
    assert (third.endpoint, third.replay_endpoint, third.topic) == ("tcp://10.0.0.1:41001", None, "t")
    assert third.http_rank == 1


def test_a_list_of_ranks_is_read_as_well():
    as_list = sources(
        [{"data_parallel_rank": 1, "endpoint": "tcp://10.0.0.1:7001", "replay_endpoint": None, "topic": ""}]
    )
    assert [(each.rank, each.events_port) for each in as_list] == [(1, 7001)]


def test_ranks_of_other_nodes_keep_their_place_and_are_not_followed_here():
    listed = sources({str(rank): config(7000, host=f"10.0.0.{1 + rank // 2}") for rank in (0, 2)} | {"3": config(7001)})
    specs = pod_publishers(pod("p"), qualified=False, sources=listed)
    assert [(spec.rank, spec.http_rank) for spec in specs] == [(0, 0), (3, 2)]


def test_annotations_precede_the_answer():
    made = pod("p", notes={"model": "m", "events-port": "6000"})
    (spec,) = pod_publishers(made, qualified=False, sources=sources({"0": config(7000)}))
    assert spec.endpoint == "tcp://10.0.0.1:6000"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ({}, "no publisher"),
        ({"0": config(7000, host="169.254.169.254")}, "no endpoint on this pod's addresses"),
        ({"0": config(7000), "1": config(7000)}, "twice"),
        ({str(rank): config(7000 + rank) for rank in range(65)}, "65 ranks"),
    ],
)
def test_answers_that_cannot_be_followed_say_why(answer, word):
    with pytest.raises(PodError) as caught:
        pod_publishers(pod("p"), qualified=False, sources=sources(answer))
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [b"", b"7", b"null", b"[7]", b'{"x":{}}', b'{"0":7}', b'{"0":{}}', b'{"0":{"endpoint":7}}', b"[" * 5000,
     b'{"0":{"endpoint":"tcp://*:0"}}', b'{"0":{"endpoint":"ipc://x"}}', b'{"' + b"1" * 5000 + b'":{}}',
     b'{"0":{"endpoint":"tcp://*:' + b"1" * 900 + b'"}}', b"\xff", b'[{"endpoint":"tcp://*:1"}]',
     b'{"0":{"endpoint":"tcp://*:7","topic":[]}}'],
)  # fmt: skip
def test_unusable_answers_are_refused_in_one_short_message(body):
    with pytest.raises(ArgumentsError) as caught:
        parse_sources(body)
    assert len(str(caught.value)) < 300


# -- the question -------------------------------------------------------------------------------------------------


def test_fetching(engine):
    body = json.dumps({"0": config(7000)}).encode()
    assert fetch_sources(engine(http(body)).url) == parse_sources(body)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert fetch_sources(engine(chunked).url) == parse_sources(body)


@pytest.mark.parametrize("status", ["404 Not Found", "401 Unauthorized", "302 Found"])
def test_an_engine_without_the_list(engine, status):
    other = engine(http(json.dumps({"0": config(7000)}).encode()))
    redirecting = engine(http(b"", status, f"Location: {other.url}/kv_event_sources\r\n"))
    assert fetch_sources(redirecting.url) is None
    assert other.asked == 0


def test_bounds_of_bytes_and_time(engine):
    with pytest.raises(ArgumentsError, match="more than"):
        fetch_sources(engine(http(b" " * (2 * MAX_ANSWER_BYTES))).url)
    release = threading.Event()

    def drip(connection):
        while not release.wait(0.01):
            connection.sendall(b"H")

    for hang in (drip, lambda connection: release.wait(DEADLINE_S)):
        with pytest.raises(TimeoutError):
            fetch_sources(engine(hang).url, 0.2)
    release.set()
    for broken in (b"", b"no HTTP\r\n\r\n", http(b"", "500 Broken")):
        with pytest.raises(OSError, match=r"no HTTP answer|status 500"):
            fetch_sources(engine(broken).url)


@pytest.fixture
def asker():
    running = []

    def start(fetch):
        made = SourceAsker(fetch, pause_s=0.01)
        made.start()
        running.append(made)
        return made

    yield start
    for each in running:
        each.stop()


def test_the_table_follows_arguments_until_the_engine_answers(asker):
    sink, ask = Sink(), threading.Event()

    def fetch(url):
        assert url == "http://10.0.0.1:8000"
        ask.wait(DEADLINE_S)
        return sources({"0": config(7000)})

    table = PodTable(sink, qualified=False, asker=asker(fetch))
    table.changed(pod("p"))
    assert sink.specs["p"].endpoint == "tcp://10.0.0.1:5557"
    ask.set()
    wait_until("the answer counts", lambda: sink.specs["p"].endpoint == "tcp://10.0.0.1:7000", deadline_s=DEADLINE_S)
    table.changed(pod("p", ready=False))
    assert sink.specs["p"].endpoint == "tcp://10.0.0.1:7000"
    assert not sink.specs["p"].ready


def test_a_new_engine_process_is_asked_again_and_a_refusal_names_the_pod(asker):
    ports = iter((7000, 7001))
    sink = Sink()

    def fetch(url):
        port = next(ports, None)
        if port is None:
            raise ArgumentsError("too much")
        return sources({"0": config(port)})

    table = PodTable(sink, qualified=False, asker=asker(fetch))
    for restarts, port in enumerate((7000, 7001)):
        table.changed(pod("p", restarts=restarts))
        wait_until("the port", lambda: sink.specs["p"].endpoint.endswith(str(port)), deadline_s=DEADLINE_S)  # noqa: B023
    table.changed(pod("p", restarts=2))
    wait_until("the refusal", lambda: table.problems == {"default/p": "too much"}, deadline_s=DEADLINE_S)
    assert sink.specs == {}
    table.deleted(pod("p"))
    assert table.problems == {}


def test_an_engine_that_is_away_is_asked_again_and_then_left_alone(asker):
    attempts, answers = [], []

    def fetch(url):
        attempts.append(url)
        raise OSError("away")

    made = asker(fetch)
    made.ask("a", "http://a", lambda key, answer: answers.append((key, answer)))
    made.ask("a", "http://a", lambda key, answer: answers.append((key, answer)))
    wait_until("it gives up", lambda: answers, deadline_s=DEADLINE_S)
    assert answers == [("a", Answer())]
    assert len(attempts) == 6


def test_pods_that_need_no_question_are_not_asked():
    class Never:
        def ask(self, *_):
            raise AssertionError("asked")

        def forget(self, _):
            raise AssertionError("forgotten")

    table = PodTable(Sink(), qualified=False, asker=Never())
    sglang = ["-m", "sglang.launch_server", "--kv-events-config", '{"publisher":"zmq"}']
    for number, made in enumerate(
        [
            pod("a", ready=False),
            pod("b", notes={"model": "m", "events-port": "6000"}),
            pod("c", command=["python3"], args=sglang),
            pod("d", args=["-dp", "2", "-dpl", "1", "--headless"]),
        ]
    ):
        table.changed(made)
        assert len(table) == number + 1, table.problems
