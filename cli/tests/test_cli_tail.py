"""`kvsync tail`: sequences as lines, without a socket and on real sockets."""

import contextlib
import json
import socket
import threading

import pytest
import zmq
from cli_helpers import invoke, one_line

from kvsync.tailing.lines import Tail, as_json, describe
from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventBatch,
    WireForm,
    encode_batch,
    pub_frames,
    replay_end,
    replay_reply,
)
from kvsync_testkit.ports import free_port

FORM = WireForm.for_version("0.33.0")


def payload(*events, ts=1_700_000_000.25):
    return encode_batch(EventBatch(ts, list(events), 0), FORM)


def stored(*hashes, parent=None):
    return BlockStored(list(hashes), parent, list(range(16 * len(hashes))), 16, medium="GPU")


def kinds(lines):
    return [line.kind for line in lines]


def test_events_are_one_line_each():
    tail = Tail()
    lines = list(
        tail.live(0, payload(stored(1, 2, 3, 4, parent=9), BlockRemoved([7], medium="CPU"), AllBlocksCleared()))
    )
    assert [line.text for line in lines] == [
        f"22:13:20.250 seq 0 BlockStored 4 GPU 64 tokens, after {9:016x}: {1:016x} {2:016x} {3:016x} +1",
        "22:13:20.250 seq 0 BlockRemoved 1 CPU 0000000000000007",
        "22:13:20.250 seq 0 AllBlocksCleared",
    ]
    assert json.loads(as_json(lines[0]))["block_hashes"] == [1, 2, 3, 4]


def test_gaps_and_restarts_are_marked():
    tail = Tail()
    assert kinds(tail.live(5, payload(stored(1)))) == ["event"]
    gap, event = tail.live(9, payload(stored(2)))
    assert gap.text == "-- gap: 3 batches missing, seq 6..8"
    assert event.kind == "event"
    restart, _ = tail.live(0, payload(stored(3)))
    assert restart.text == "-- restart: seq 0 after 9"
    assert kinds(tail.live(1, payload(stored(4)))) == ["event"]


def test_what_cannot_be_decoded_is_a_line_and_the_sequence_goes_on():
    tail = Tail()
    (bad,) = tail.live(0, b"\xc1")
    assert bad.kind == "error"
    assert kinds(tail.live(1, payload())) == ["empty"]


def test_hashes_as_bytes_and_signed_numbers_are_shown_in_hex():
    assert describe(BlockRemoved([b"\xab" * 32])).endswith("abababababababab")
    assert describe(BlockRemoved([-1])).endswith("ffffffffffffffff")


class Publisher(threading.Thread):
    """A PUB that sends `live` after the first subscription and, if there is a history, after the first replay.

    `histories` has the batches that the first, second, … replay request finds.
    """

    def __init__(self, live, *histories):
        super().__init__(daemon=True)
        self.live, self.histories = live, histories
        self.context = zmq.Context()
        self.pub, self.router = self.context.socket(zmq.XPUB), self.context.socket(zmq.ROUTER)
        self.port = self.pub.bind_to_random_port("tcp://127.0.0.1")
        self.replay_port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.requests = []
        self.stopping = threading.Event()

    def run(self):
        sent = False
        while not self.stopping.is_set():
            if self.router.poll(5):
                identity, _, start = self.router.recv_multipart()
                first = int.from_bytes(start, "big")
                self.requests.append(first)
                for seq, data in self.histories[len(self.requests) - 1].items():
                    if seq >= first:
                        self.router.send_multipart([identity, *replay_reply(FORM, "", seq, data)])
                self.router.send_multipart([identity, *replay_end(FORM)])
            if not sent and self.pub.poll(5) and (self.requests or not self.histories):
                self.pub.recv()
                for seq, data in self.live:
                    self.pub.send_multipart(pub_frames("", seq, data))
                sent = True
        self.context.destroy(linger=0)


@contextlib.contextmanager
def publishing(live, *histories):
    publisher = Publisher(live, *histories)
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.stopping.set()
        publisher.join()


def test_live_stream_with_a_gap():
    live = [(seq, payload(stored(seq + 1))) for seq in (0, 1, 4)]
    with publishing(live) as publisher:
        code, out, err = invoke("tail", f"tcp://127.0.0.1:{publisher.port}", "--count", 3, "--idle", 60)
    assert code == 0
    assert one_line(err) == f"-- connected to tcp://127.0.0.1:{publisher.port}; waiting for events"
    lines = out.splitlines()
    assert len(lines) == 4
    assert lines[2] == "-- gap: 2 batches missing, seq 2..3"


@pytest.mark.parametrize("bind", [(), ("--bind",)])
def test_a_quiet_stream_says_that_it_is_connected(bind):
    context = zmq.Context()
    with context.socket(zmq.PUB) as publisher:
        publisher.setsockopt(zmq.LINGER, 0)
        if bind:
            endpoint = f"tcp://127.0.0.1:{free_port()}"
            publisher.connect(endpoint)
        else:
            endpoint = f"tcp://127.0.0.1:{publisher.bind_to_random_port('tcp://127.0.0.1')}"
        code, out, err = invoke("tail", *bind, endpoint, "--idle", 1)
    context.term()
    assert (code, out) == (0, "")
    assert one_line(err) == f"-- connected to {endpoint}; waiting for events"


def test_a_server_without_zmq_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def greet():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(1000)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        code, out, err = invoke("tail", f"tcp://127.0.0.1:{port}", "--idle", 1)
    assert (code, out) == (0, "")
    assert one_line(err) == f"-- tcp://127.0.0.1:{port} accepts connections, but does not speak ZMQ; trying again"


def test_history_comes_first_and_a_gap_is_filled_from_replay():
    batches = {seq: payload(stored(seq + 1)) for seq in range(6)}
    live = [(seq, batches[seq]) for seq in (2, 5)]
    with publishing(live, {seq: batches[seq] for seq in (0, 1)}, batches) as publisher:
        endpoint, replay = f"tcp://127.0.0.1:{publisher.port}", f"tcp://127.0.0.1:{publisher.replay_port}"
        code, out, _ = invoke("tail", endpoint, "--replay", replay, "--json", "--count", 6, "--idle", 60)
    assert code == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [(record["kind"], record.get("seq"), record.get("source")) for record in records] == [
        ("event", 0, "replay"),
        ("event", 1, "replay"),
        ("event", 2, "live"),
        ("gap", None, None),
        ("event", 3, "replay"),
        ("event", 4, "replay"),
        ("event", 5, "live"),
    ]
    assert publisher.requests == [0, 3]


def test_history_that_is_gone_is_a_marked_gap():
    batches = {seq: payload(stored(seq + 1)) for seq in (7, 8)}
    with publishing([], batches) as publisher:
        code, out, _ = invoke(
            "tail",
            f"tcp://127.0.0.1:{publisher.port}",
            *("--replay", f"tcp://127.0.0.1:{publisher.replay_port}", "--count", 2, "--idle", 60),
        )
    assert code == 0
    assert out.splitlines()[0] == "-- replay no longer has seq 0..6"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("nonsense",), 2, "must be tcp://HOST:PORT or ipc://PATH"),
        (("tcp://127.0.0.1:none",), 2, "'none' is not a port"),
        (("tcp://127.0.0.1:5557", "--from", "3"), 2, "--from needs --replay"),
    ],
)
def test_bad_endpoints_are_one_line(args, code, says):
    found, _, err = invoke("tail", *args)
    assert found == code
    assert says in one_line(err)


def test_an_unreachable_publisher_is_one_line():
    from kvsync.errors import UnreachableError
    from kvsync.tailing.sockets import wait_connectable

    with pytest.raises(UnreachableError, match="connection refused"):
        wait_connectable("tcp://127.0.0.1:1", deadline_s=0.2)
