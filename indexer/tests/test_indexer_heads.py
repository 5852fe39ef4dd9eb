"""Heads of requests that are too long or never end, on plain connections and on those that answer matches."""

import asyncio

import pytest

from kvsync_indexer import heads
from kvsync_indexer.descriptors import ReservingProtocol
from kvsync_indexer.service.protocol import match_protocol
from kvsync_indexer.serving import HttpServer, listen
from kvsync_testkit.waiting import until

KINDS = [ReservingProtocol, match_protocol(lambda _body: b"{}")]


async def app(scope, receive, send):
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def talk(kind, *parts):
    """Send the parts and return all that is answered until the server closes the connection."""
    bound = listen("127.0.0.1", 0)
    server = HttpServer(app, bound, lifespan="off", http=kind)
    port = bound.getsockname()[1]
    serving = asyncio.create_task(server.serve())
    await until("it serves", lambda: server.started)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(reader.read(), 30)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()
        server.stop(at_once=True)
        await serving


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [b"/v1/match", b"/other"])
async def test_a_body_may_be_longer_than_a_head(kind, path):
    size = 4 * heads.MOST_BYTES
    request = b"POST %s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % (path, size)
    answer = await talk(kind, request, b" " * size)
    assert answer.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [b"x-long: ", b"x-many: 1\r\n" * 9000])
async def test_a_long_head_is_refused(kind, name):
    answer = await talk(kind, b"POST /v1/match HTTP/1.1\r\n" + name, *[b"y" * 10_000] * 10)
    assert answer.startswith(b"HTTP/1.1 431") or answer == b"reset"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_head_that_does_not_end_is_given_up(kind, monkeypatch):
    monkeypatch.setattr(heads, "WITHIN_S", 0.1)
    assert await talk(kind, b"GET / HTTP/1.1\r\nhost: x\r\n") in (b"", b"reset")
