"""What server processes share: listening sockets, and servers that end together on a signal."""

import asyncio
import contextlib
import signal
import socket

import pytest

from kvsync_indexer.errors import ListenError
from kvsync_indexer.serving import HttpServer, listen, serve_until_signalled
from kvsync_testkit.waiting import until


class FakeServer:
    """Serves until it is stopped, and remembers how."""

    def __init__(self):
        self.stops = []
        self.serving = False
        self._stopped = asyncio.Event()

    async def serve(self):
        self.serving = True
        await self._stopped.wait()

    def stop(self, *, at_once):
        self.stops.append(at_once)
        self._stopped.set()


@pytest.fixture
async def servers():
    """Two servers; the handlers that a test installs go with its event loop."""
    yield [FakeServer(), FakeServer()]
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_a_signal_ends_every_server(servers, number, code):
    ending = asyncio.create_task(serve_until_signalled(servers))
    await until("both serve", lambda: all(server.serving for server in servers))
    signal.raise_signal(number)
    assert await ending == code
    assert [server.stops for server in servers] == [[False], [False]]


async def test_a_second_signal_does_not_wait_and_the_first_one_counts(servers):
    ending = asyncio.create_task(serve_until_signalled(servers))
    await until("both serve", lambda: all(server.serving for server in servers))
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)
    assert await ending == 0
    assert [server.stops for server in servers] == [[False, True], [False, True]]


async def test_a_signal_during_the_start_ends_the_servers_after_it(servers):
    states = []

    @contextlib.asynccontextmanager
    async def starting():
        signal.raise_signal(signal.SIGTERM)
        await until("the signal arrived", lambda: servers[0].stops)
        states.append("started")
        yield
        states.append("stopped")

    assert await serve_until_signalled(servers, starting()) == 0
    assert states == ["started", "stopped"]


def test_a_port_that_is_taken_and_a_host_that_is_unknown_are_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            listen("127.0.0.1", port)
    with pytest.raises(ListenError, match=r"^cannot listen on no\.such\.host\.invalid:0: "):
        listen("no.such.host.invalid", 0)


@contextlib.asynccontextmanager
async def served(app):
    """(socket, answer), where `await answer()` sends one request and returns every byte of its answer."""
    bound = listen("127.0.0.1", 0)
    server = HttpServer(app, bound, lifespan="off")
    serving = asyncio.create_task(server.serve())
    await until("the server started", lambda: server.started)

    async def answer():
        reader, writer = await asyncio.open_connection(*bound.getsockname())
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        data = await reader.read()
        writer.close()
        return data

    try:
        yield bound, answer
    finally:
        server.stop(at_once=False)
        await serving


async def test_an_http_server_answers_until_it_is_stopped_and_closes_its_socket():
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with served(app) as (bound, answer):
        data = await answer()
    assert data.startswith(b"HTTP/1.1 204 ")
    assert b"server:" not in data.lower()
    assert bound.fileno() == -1


async def test_an_answer_that_is_cut_on_purpose_is_not_logged(caplog):
    async def app(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with served(app) as (_, answer):
        assert (await answer()).endswith(b"half")
    assert caplog.records == []


async def test_an_exception_of_the_application_is_logged(caplog):
    async def app(_scope, _receive, _send):
        raise ValueError("broken")

    async with served(app) as (_, answer):
        assert (await answer()).startswith(b"HTTP/1.1 500 ")
    assert [record.getMessage() for record in caplog.records] == ["Exception in ASGI application\n"]
