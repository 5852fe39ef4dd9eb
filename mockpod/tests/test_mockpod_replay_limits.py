"""Replay clients that do not read take a bounded amount of memory, and do not keep others from being served."""

import asyncio
from collections import deque

import pytest
import zmq
from mockpod_helpers import replay_frames

from kvsync_events import WireForm, replay_request
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.publish.backlog import BacklogLimits
from kvsync_mockpod.publish.replay import ReplayServer
from kvsync_testkit.waiting import until

PAYLOAD = 100_000
BATCHES = 200


@pytest.fixture
async def serve():
    """A function that starts a server with 20 MB in its buffer; everything is closed at the end."""
    context, servers = zmq.Context(), []

    def start(**limits):
        buffer = deque((seq, bytes([seq % 256]) * PAYLOAD) for seq in range(BATCHES))
        config = KVEventsConfig(enable_kv_cache_events=True)
        form = WireForm.for_version("0.33.0")
        server = ReplayServer(0, form, config, buffer, ActiveFaults(), lambda: 0, BacklogLimits(**limits))
        server.open(context, "tcp://127.0.0.1:0")
        server.start(asyncio.get_running_loop())
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
    context.destroy(linger=0)


@pytest.fixture
def deaf():
    """A function that connects clients that ask for everything and never read; they are closed at the end."""
    context, clients = zmq.Context(), []

    def connect(server, count):
        for _ in range(count):
            client = context.socket(zmq.DEALER)
            clients.append(client)
            client.setsockopt(zmq.RCVHWM, 1)
            client.setsockopt(zmq.RCVBUF, 4096)
            client.connect(server.endpoint)
            client.send_multipart(replay_request(0))

    yield connect
    context.destroy(linger=0)


async def test_many_clients_that_never_read_are_bounded(serve, deaf):
    limits = {"clients": 16, "client_bytes": 2**20, "patience_s": 0.1}
    server = serve(**limits)
    deaf(server, 100)
    await until("every client was refused or given up", lambda: server.requests == 100 and server.refused >= 100)
    assert server.batches < 100 * BATCHES / 2
    assert server.backlog.total_bytes <= 16 * (2**20 + 2 * PAYLOAD)


async def test_a_client_that_reads_gets_everything_beside_those_that_do_not(serve, deaf):
    server = serve(clients=8, client_bytes=2**20, patience_s=0.1)
    deaf(server, 6)
    await until("they were given up", lambda: server.refused == 6)
    frames = await replay_frames(server.endpoint, 0)
    assert [int.from_bytes(frame[-2], "big") for frame in frames[:-1]] == list(range(BATCHES))
    assert len(frames) == BATCHES + 1, "with the end marker"


async def test_a_client_that_does_not_read_is_not_answered_again(serve):
    server = serve(client_bytes=2**20, patience_s=0.05)
    context = zmq.Context()
    try:
        client = context.socket(zmq.DEALER)
        client.setsockopt(zmq.RCVHWM, 1)
        client.connect(server.endpoint)
        client.send_multipart(replay_request(0))
        await until("the answer is dropped", lambda: server.refused == 1)
        sent = server.batches
        for _ in range(20):
            client.send_multipart(replay_request(0))
        await until("the other requests are refused", lambda: server.refused == 21)
        assert server.batches == sent
    finally:
        context.destroy(linger=0)


async def test_memory_is_released_when_a_client_leaves(serve, deaf):
    server = serve(clients=1, client_bytes=2**20, patience_s=0.05)
    context = zmq.Context()
    client = context.socket(zmq.DEALER)
    client.setsockopt(zmq.RCVHWM, 1)
    client.connect(server.endpoint)
    client.send_multipart(replay_request(0))
    await until("the answer is dropped", lambda: server.refused == 1)
    assert server.backlog.total_bytes > 2**20
    context.destroy(linger=0)
    await until("nothing is kept for it", lambda: server.backlog.total_bytes == 0)
    assert len(await replay_frames(server.endpoint, 0)) == BATCHES + 1
