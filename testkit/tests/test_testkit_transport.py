"""Transports: real sockets on random ports, both directions, bounded, nothing left behind."""

import asyncio
import socket
import threading

import pytest

from kvsync_testkit.errors import ConfigurationError, TransportError
from kvsync_testkit.transport import (
    Message,
    TransportBuilder,
    create_async_transport,
    create_async_transport_pair,
    create_transport,
    create_transport_pair,
)


def test_a_pair_talks_both_ways_over_loopback_tcp():
    a, b = create_transport_pair("prefill", "decode")
    with a, b:
        assert a.endpoint == f"tcp://127.0.0.1:{a.port}"
        assert a.port != b.port
        a.send(b"one", b"")
        a.send(b"two")
        b.send(b"back")
        assert b.receive() == Message("prefill", [b"one", b""])
        assert b.receive() == Message("prefill", [b"two"])
        assert a.receive() == Message("decode", [b"back"])


def test_each_instance_listens_on_a_real_port_until_it_is_closed():
    one = create_transport()
    socket.create_connection(("127.0.0.1", one.port)).close()
    one.close()
    one.close()
    assert one.closed
    with socket.socket() as again:  # the port is free again
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", one.port))
    with pytest.raises(TransportError, match="is closed"):
        one.receive()


def test_no_thread_outlives_a_closed_pair():
    before = threading.active_count()
    for one in create_transport_pair():
        one.close()
    assert threading.active_count() == before


def fill(transport, payload):
    for sent in range(1000):
        try:
            transport.send(payload, timeout_s=0)
        except TransportError:
            return sent
    return 1000


def test_a_full_queue_refuses_instead_of_growing():
    a, b = TransportBuilder(capacity=2).build_pair()
    payload = bytes(1 << 20)
    with a, b:
        sent = fill(a, payload)
        assert sent < 1000
        with pytest.raises(TransportError, match="queue full"):
            a.send(payload, timeout_s=0)
        for _ in range(sent):  # what was accepted arrives whole
            assert b.receive().frames == [payload]


def test_silence_and_absent_peers_are_typed_errors():
    with create_transport("lonely") as one:
        with pytest.raises(TransportError, match="lonely received nothing"):
            one.receive(timeout_s=0)
        with pytest.raises(TransportError, match="connected to no peer"):
            one.send(b"x")
        with create_transport("gone") as gone:
            endpoint = gone.endpoint
        with pytest.raises(TransportError, match="no connection to"):
            one.connect("gone", endpoint, timeout_s=0)
        assert one.peers == ()


def test_one_instance_serves_several_peers_by_name():
    hub, left, right = create_transport("hub"), create_transport("left"), create_transport("right")
    with hub, left, right:
        for peer in (left, right):
            hub.connect(peer.name, peer.endpoint)
        with pytest.raises(TransportError, match="an unnamed peer"):
            hub.send(b"for whom?")
        with pytest.raises(TransportError, match="already connected"):
            hub.connect("left", left.endpoint)
        hub.send(b"r", to="right")
        assert right.receive() == Message("hub", [b"r"])


async def test_the_asynchronous_pair_waits_for_what_comes_later():
    a, b = await create_async_transport_pair()
    async with a, b:
        waiting = asyncio.create_task(b.receive())
        await a.send(b"late")
        assert await waiting == Message("a", [b"late"])
        await b.send(b"answer")
        assert (await a.receive()).frames == [b"answer"]
        with pytest.raises(TransportError, match="received nothing"):
            await a.receive(timeout_s=0)


async def test_the_two_kinds_speak_to_each_other():
    async with await create_async_transport("loop") as one:
        with create_transport("thread") as other:
            other.connect("loop", one.endpoint)
            other.send(b"hello")
            assert await one.receive() == Message("thread", [b"hello"])


def test_a_transport_without_a_queue_is_refused():
    with pytest.raises(ConfigurationError):
        TransportBuilder().names("x").capacity(0).timeout(1).build()
