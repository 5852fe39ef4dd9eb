"""The router's own connections to engines: they are used again, and nothing on them is believed without a check."""

import asyncio
import contextlib

import aiohttp
import pytest
from aiohttp import web
from router_helpers import ask, running_engines, running_router

from kvsync_router.errors import UpstreamError
from kvsync_router.proxy.pool import ConnectionPool
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import until


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_connection_serves_many_requests(streamed):
    peers = set()

    async def answer(request):
        peers.add(request.transport.get_extra_info("peername"))
        if not streamed:
            return web.json_response({})
        response = web.StreamResponse()
        await response.prepare(request)
        for part in range(3):
            await response.write(b"data: %d\n\n" % part)
        return response

    async with running_engines("a") as (engine,), running_router([engine]) as (_, url):
        engine.behave = answer
        async with aiohttp.ClientSession() as session:
            bodies = {(await ask(session, url))[2] for _ in range(10)}
        assert bodies == {b"data: 0\n\ndata: 1\n\ndata: 2\n\n" if streamed else b"{}"}
        assert len(peers) == 1


async def test_a_connection_that_the_engine_has_closed_costs_no_attempt():
    async with (
        running_engines("a") as (engine,),
        running_router([engine], attempts=1) as (router, url),
        aiohttp.ClientSession() as session,
    ):
        assert (await ask(session, url))[0] == 200
        await engine.stop()
        await engine.start()
        await until("it is in the rotation", lambda: router.table.rotation(None))
        assert (await ask(session, url))[0] == 200


@contextlib.asynccontextmanager
async def raw(answers):
    """A server that sends the next of `answers` for each request on a connection; its URL."""
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        for answer in answers:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            writer.write(answer)
            await writer.drain()
            if b"close" in answer:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


REQUEST = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"


async def exchange(connection):
    connection.send(REQUEST)
    await connection.head()
    body = b""
    while chunk := await connection.chunk():
        body += chunk
    return connection.status, body


async def test_answers_of_every_framing_are_read():
    answers = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end",
    ]
    pool = ConnectionPool(2.0)
    async with raw(answers) as url:
        connection = await pool.connect(url)
        got = [await exchange(connection) for _ in range(4)]
        assert got == [(200, b"abc"), (200, b"abc"), (201, b""), (204, b"")]
        assert connection.keeps_alive
        assert await exchange(connection) == (200, b"until the end")
        assert not connection.keeps_alive


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"nonsense\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, "headers are too long"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nab", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx: close\r\n\r\n2\r\nab", "closed the connection"),
        (b"close", "not HTTP"),
    ],
)
async def test_a_broken_answer_is_an_error(answer, problem):
    async with raw([answer]) as url:
        connection = await ConnectionPool(2.0).connect(url)
        with pytest.raises(UpstreamError, match=problem):
            await exchange(connection)
        assert not connection.usable


async def test_an_answer_that_nobody_asked_for_ends_the_connection():
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na"
    async with raw([answer + answer]) as url:
        connection = await ConnectionPool(2.0).connect(url)
        assert await exchange(connection) == (200, b"a")
        assert not connection.keeps_alive


async def test_only_permitted_addresses_are_connected_to():
    pool = ConnectionPool(2.0)
    for url in ("http://169.254.169.254", "http://[fe80::1]:8000", f"http://127.0.0.1:{free_port()}"):
        with pytest.raises(UpstreamError) as caught:
            await pool.connect(url)
        assert (caught.value.down, caught.value.cut_off) == (True, False)


async def test_idle_connections_are_forgotten_after_a_while():
    now = [0.0]
    async with raw([b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"] * 9) as url:
        pool = ConnectionPool(2.0, lambda: now[0])
        connection = await pool.connect(url)
        await exchange(connection)
        pool.keep(url, connection)
        assert pool.reusable(url) is connection
        await exchange(connection)
        pool.keep(url, connection)
        now[0] = 60.0
        assert pool.reusable(url) is None
        await until("it is closed", lambda: not connection.usable)
