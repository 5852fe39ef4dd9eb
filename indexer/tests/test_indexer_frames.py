"""Hostile frames on live sockets: a seeded fuzzer sends what no engine sends, and another publisher notices nothing.

KVSYNC_FUZZ_EXAMPLES sets the number of messages for each kind of socket.
"""

import os
import random
import socket
import threading

import pytest
from index_core_helpers import new_core
from service_helpers import BLOCK, MODEL, ScriptedPublisher, wait_for

from kvsync_events import encode_seq
from kvsync_indexer.ingest import Ingest, SocketSettings
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import SyncSettings

MESSAGES = int(os.environ.get("KVSYNC_FUZZ_EXAMPLES", "300"))
LARGEST = 64 << 10
"""Longer than the sockets of these tests accept."""


def payload(chance):
    """Bytes of one frame: random, almost msgpack, deep, long or empty."""
    kind = chance.randrange(7)
    if kind == 0:
        return chance.randbytes(chance.randrange(64))
    if kind == 1:
        return bytes([0x91]) * chance.choice((8, 600, 5000))  # arrays in arrays
    if kind == 2:
        return bytes([0xDD]) + chance.randbytes(4)  # an array that claims up to 2^32 items
    if kind == 3:
        return bytes([0x93, 0xCB]) + chance.randbytes(8) + bytes([0xDC, 0xFF, 0xFF]) + chance.randbytes(20)
    if kind == 4:
        return b"\x93\xcb" + chance.randbytes(8) + b"\x91\x82\xa4type\xacBlockStored" + chance.randbytes(30)
    if kind == 5:
        return bytes(LARGEST + 1)
    return b""


def frames(chance):
    """A message: usually of the right shape, with any sequence number."""
    count = chance.choice((3, 3, 3, 3, 1, 2, 4, 7))
    parts = [payload(chance) for _ in range(count)]
    if count >= 2 and chance.random() < 0.8:
        parts[1] = encode_seq(chance.choice((0, 1, 2, 2**32, 2**64 - 1, chance.randrange(2**64))))
    return parts


class Hostile(ScriptedPublisher):
    """A publisher whose replay socket answers with anything as well."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        super().__init__()

    def _serve(self):
        while not self._stop:
            if not self.router.poll(5):
                continue
            identity, *_ = self.router.recv_multipart()
            self.requests.append(0)
            for _ in range(self.chance.randrange(8)):
                self.router.send_multipart([identity, b"", *frames(self.chance)])


@pytest.fixture
def ingest():
    """An ingest that gives up and tries again soon, with a limit for messages."""
    made = Ingest(
        new_core("python"),
        sync=SyncSettings(replay_timeout_s=0.2, stale_after_s=60.0),
        sockets=SocketSettings(max_message_bytes=LARGEST),
    )
    made.start()
    yield made
    made.stop()


def follow(ingest, name, publisher):
    ingest.add(
        PublisherSpec(name=name, model=MODEL, endpoint=publisher.endpoint, replay_endpoint=publisher.replay_endpoint)
    )
    wait_for(lambda: ingest.link(name) is not None and ingest.link(name).connected, what=f"{name} is connected")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whatever_one_publisher_sends_the_other_is_followed(ingest, seed):
    hostile, good = Hostile(seed), ScriptedPublisher()
    try:
        follow(ingest, "good", good)
        follow(ingest, "bad", hostile)
        sent = 0
        for number in range(MESSAGES):
            hostile.send_raw(frames(hostile.chance))
            if number % 10 == 0:
                good.store(1, list(range(BLOCK)))
                sent += 1
        wait_for(lambda: ingest.link("good").machine.next_seq == sent, what="the good publisher's batches are applied")
        assert ingest.core.digest("good")[0].count == len(good.resident)
        assert (ingest.link("good").machine.counters.gaps, ingest.link("good").follower.trusted) == (0, True)
        assert ingest.running
        assert ingest.defects == 0
        wait_for(lambda: ingest.link("bad").machine.counters.decode_errors > 0, what="an error is counted")
        # It may be followed again from its live events alone, but is never taken for complete.
        assert "bad" not in ingest.trusted.get(MODEL, ()) or ingest.link("bad").machine.incomplete
    finally:
        hostile.close()
        good.close()


def test_a_peer_that_speaks_no_zmq_is_not_heard(ingest):
    """Random bytes on the TCP connection, below ZMQ."""
    chance = random.Random(7)
    server = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve():
        server.settimeout(0.05)
        while not ended.is_set():
            try:
                peer, _ = server.accept()
            except TimeoutError:
                continue
            with peer:
                peer.sendall(chance.choice((b"", b"\xff" + bytes(8) + b"\x7f\x03")) + chance.randbytes(200))

    thread = threading.Thread(target=serve)
    thread.start()
    good = ScriptedPublisher()
    try:
        endpoint = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        ingest.add(PublisherSpec(name="raw", model=MODEL, endpoint=endpoint, replay_endpoint=endpoint))
        follow(ingest, "good", good)
        good.store(1, list(range(BLOCK)))
        wait_for(lambda: ingest.link("good").machine.next_seq == 1, what="the batch is applied")
        assert not ingest.link("raw").follower.trusted
        assert (ingest.running, ingest.defects) == (True, 0)
    finally:
        ended.set()
        thread.join()
        server.close()
        good.close()
