"""Readers with a limit: bodies of requests and of answers that are too long, too slow or elsewhere."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

from kvsync_indexer.bounded import Bound, fetched, read_request
from kvsync_indexer.errors import OversizeError, RequestError
from kvsync_indexer.ingest import SocketSettings

BOUND = Bound(1000, 30.0)
MOST_QUEUED = 1 << 30


async def serve(handler, use):
    app = web.Application()
    app.router.add_get("/{tail:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/"
    try:
        async with aiohttp.ClientSession() as session:
            return await use(session, url)
    finally:
        await runner.cleanup()


def fetch(handler, bound=BOUND):
    async def use(session, url):
        async with fetched(session, url, bound) as (response, data):
            return response.status, data

    return asyncio.run(serve(handler, use))


def chunks(*parts):
    async def handler(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        return response

    return handler


def test_an_answer_within_the_limit_is_read():
    assert fetch(chunks(b"a" * 500, b"b" * 500)) == (200, b"a" * 500 + b"b" * 500)


def test_a_longer_one_is_refused_before_it_is_read():
    async def announces(request):
        response = web.StreamResponse(headers={"content-length": "1001"})
        await response.prepare(request)
        await asyncio.sleep(60)

    with pytest.raises(OversizeError, match="1001 bytes, which is over the limit of 1000 bytes"):
        fetch(announces)


def test_one_that_does_not_say_how_long_it_is_is_read_up_to_the_limit():
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 4096)

    with pytest.raises(OversizeError):
        fetch(endless)


def test_a_slow_one_is_given_up():
    async def slow(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        fetch(slow, Bound(1000, 0.2))


def test_a_redirect_is_not_followed():
    async def elsewhere(request):
        raise web.HTTPFound("/internal") if request.path == "/" else web.HTTPOk(text="secret")

    status, data = fetch(elsewhere)
    assert status == 302
    assert b"secret" not in data


def receiving(*messages):
    queue = list(messages)

    async def receive():
        if not queue:
            await asyncio.sleep(60)
        return queue.pop(0)

    return receive


def test_the_body_of_a_request_is_read():
    first = {"type": "http.request", "body": b"a", "more_body": True}
    receive = receiving(first, {"type": "http.request", "body": b"b"})
    assert asyncio.run(read_request(receive, BOUND)) == b"ab"


@pytest.mark.parametrize(
    ("messages", "within_s", "status"),
    [
        ([{"type": "http.request", "body": b"x" * 600, "more_body": True}] * 2, 30.0, 413),
        ([{"type": "http.request", "body": b"x", "more_body": True}], 0.1, 408),
        ([{"type": "http.disconnect"}], 30.0, 400),
    ],
)
def test_a_body_that_is_too_long_or_too_late_is_refused(messages, within_s, status):
    with pytest.raises(RequestError) as caught:
        asyncio.run(read_request(receiving(*messages), Bound(1000, within_s)))
    assert caught.value.status == status


def test_the_queue_of_a_publisher_is_bounded_in_bytes():
    settings = SocketSettings()
    assert settings.receive_hwm * settings.max_message_bytes <= MOST_QUEUED
    assert settings.replay_hwm * settings.max_message_bytes <= MOST_QUEUED
