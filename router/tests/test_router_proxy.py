# ruff: noqa: SIM117 (nested blocks read in the order things start)
"""The proxy on real sockets: intact streams, disconnects, retries, one outcome per request."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from router_helpers import MODEL, FakeEngine, FakeIndex, ask, running_engines, running_router

from kvsync_indexer.api import PublisherRow
from kvsync_indexer.descriptors import ReservingProtocol
from kvsync_router.proxy.protocol import ClientProtocol
from kvsync_router.sources.directory import InProcessDirectory
from kvsync_testkit.waiting import until

BODY = json.dumps({"model": MODEL, "prompt": "x"})


def endpoint(router, name):
    return next(row for row in router.table.statistics() if row.name == name)


async def test_stream_arrives_chunk_by_chunk_and_byte_for_byte():
    chunks = [f"data: {index} \u00e9\n\n".encode() for index in range(4)] + [b"data: [DONE]\n\n"]
    async with running_engines("a") as (engine,):
        steps = asyncio.Queue()

        async def behave(request):
            response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-engine": "yes"})
            await response.prepare(request)
            for chunk in chunks:
                await steps.get()
                await response.write(chunk)
            return response

        engine.behave = behave
        async with running_router([engine]) as (_, url), aiohttp.ClientSession() as session:
            steps.put_nowait(1)
            body = json.dumps({"model": MODEL, "prompt": "hi", "stream": True})
            async with session.post(f"{url}/v1/completions?x=1", data=body) as response:
                received = b""
                for count in range(1, len(chunks) + 1):
                    # The next chunk is only released after this one came out of the router.
                    while len(received) < sum(map(len, chunks[:count])):
                        received += await response.content.readany()
                    assert received == b"".join(chunks[:count])
                    steps.put_nowait(1)
                assert await response.content.read() == b""
                assert response.headers["x-engine"] == "yes"
                assert response.headers["content-type"] == "text/event-stream"
                assert response.headers["x-kvsync-endpoint"] == "a"
                assert response.headers["x-kvsync-policy"] == "kv"
        assert engine.bodies == [body.encode()]
        assert engine.seen[0].query_string == "x=1"


async def test_matched_endpoint_is_chosen_and_named():
    async with (
        running_engines("a", "b", "c") as engines,
        running_router(engines, {"b": 3}) as (router, url),
        aiohttp.ClientSession() as session,
    ):
        status, headers, body = await ask(session, url)
        assert (status, json.loads(body)) == (200, {"engine": "b"})
        assert headers["x-kvsync-endpoint"] == "b"
        assert headers["x-kvsync-matched-tokens"] == "3"
        text = (await (await session.get(f"{url}/metrics")).text()).splitlines()
        assert 'kvsync_router_requests_total{outcome="ok",policy="kv"} 1.0' in text
        assert "kvsync_router_matched_tokens_total 3.0" in text
        assert 'kvsync_router_endpoint_up{endpoint="b"} 1.0' in text
        assert endpoint(router, "b").assigned_tokens == 1


@pytest.mark.parametrize("http", [ClientProtocol, ReservingProtocol], ids=["own server", "any ASGI server"])
async def test_client_that_leaves_cancels_its_upstream(http):
    async with running_engines("a") as (engine,):

        async def behave(request):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"first")
            await engine.release.wait()

        engine.behave = behave
        async with running_router([engine], http=http) as (router, url), aiohttp.ClientSession() as session:
            async with session.post(
                f"{url}/v1/completions", data=json.dumps({"model": MODEL, "prompt": "x"})
            ) as response:
                assert await response.content.readany() == b"first"
                assert endpoint(router, "a").requests == 1
                response.close()
            await until("upstream cancelled", lambda: engine.cancelled == 1)
            await until("load given back", lambda: endpoint(router, "a").requests == 0)
            row = endpoint(router, "a")
            assert (row.prefill_tokens, row.decode_tokens) == (0, 0)


async def test_client_that_leaves_before_the_first_byte_cancels_too():
    async with running_engines("a") as (engine,):

        async def behave(request):
            await engine.release.wait()

        engine.behave = behave
        async with running_router([engine]) as (router, url), aiohttp.ClientSession() as session:
            asking = asyncio.create_task(ask(session, url))
            await until("request arrived", lambda: engine.seen)
            asking.cancel()
            await until("upstream cancelled", lambda: engine.cancelled == 1)
            await until("load given back", lambda: endpoint(router, "a").requests == 0)


async def test_refused_connection_moves_on_and_leaves_the_rotation_until_it_is_back():
    async with running_engines("a", "b") as (first, second):
        async with (
            running_router([first, second], {"a": 4}, probe_s=0.02) as (router, url),
            aiohttp.ClientSession() as session,
        ):
            await first.stop()
            status, headers, _ = await ask(session, url)
            assert (status, headers["x-kvsync-endpoint"]) == (200, "b")
            await until("out of the rotation", lambda: not endpoint(router, "a").healthy)
            await first.start()
            await until("back in the rotation", lambda: endpoint(router, "a").healthy)
            status, headers, _ = await ask(session, url)
            assert (status, headers["x-kvsync-endpoint"]) == (200, "a")


@pytest.mark.parametrize("fault", ["drop", "headers_only", "busy"])
async def test_failure_before_the_first_byte_is_retried_elsewhere(fault):
    async with running_engines("a", "b") as (first, second):

        async def behave(request):
            if fault == "busy":
                return web.Response(status=503)
            if fault == "headers_only":
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"")
            request.transport.abort()
            return await engine_gone.wait()

        engine_gone = asyncio.Event()
        first.behave = behave
        async with running_router([first, second], {"a": 4}) as (router, url), aiohttp.ClientSession() as session:
            status, headers, _ = await ask(session, url)
            assert (status, headers["x-kvsync-endpoint"]) == (200, "b")
            assert len(first.seen) == 1
            assert endpoint(router, "a").failures == 1


async def test_failure_after_the_first_byte_cuts_the_client_off():
    async with running_engines("a", "b") as (first, second):

        async def behave(request):
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"data: 1\n\n")
            await first.release.wait()
            request.transport.abort()

        first.behave = behave
        async with running_router([first, second], {"a": 4}) as (router, url), aiohttp.ClientSession() as session:
            async with session.post(
                f"{url}/v1/completions", data=json.dumps({"model": MODEL, "prompt": "x"})
            ) as response:
                assert await response.content.readany() == b"data: 1\n\n"
                first.release.set()
                with pytest.raises(aiohttp.ClientError):
                    await response.content.read()
            assert second.seen == []
            await until("load given back", lambda: endpoint(router, "a").requests == 0)


async def test_nobody_answers_is_one_openai_error():
    async with running_engines("a", "b") as engines, running_router(engines) as (_, url):
        async with aiohttp.ClientSession() as session:
            for engine in engines:
                await engine.stop()
            status, headers, body = await ask(session, url)
            assert status == 502
            assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}
            assert headers["x-kvsync-policy"] == "kv"
            status, _, body = await ask(session, url)
            assert status == 503


async def test_last_busy_answer_is_passed_on():
    async with running_engines("a") as (engine,):

        async def behave(request):
            return web.json_response({"error": {"message": "full"}}, status=429)

        engine.behave = behave
        async with running_router([engine], attempts=2) as (_, url), aiohttp.ClientSession() as session:
            status, headers, body = await ask(session, url)
            assert (status, json.loads(body)) == (429, {"error": {"message": "full"}})
            assert headers["x-kvsync-endpoint"] == "a"
            assert len(engine.seen) == 2


async def test_errors_of_the_engine_are_its_own():
    async with running_engines("a", "b") as engines:

        async def behave(request):
            return web.json_response({"error": {"message": "too long"}}, status=400)

        for engine in engines:
            engine.behave = behave
        async with running_router(engines) as (_, url), aiohttp.ClientSession() as session:
            status, _, body = await ask(session, url)
            assert (status, json.loads(body)) == (400, {"error": {"message": "too long"}})
            assert sum(len(engine.seen) for engine in engines) == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{", 400), (b"[]", 400), (b'{"model": 3}', 400), (b'{"model": "nobody", "prompt": "x"}', 404)],
)
async def test_bad_requests_are_refused_here(body, status):
    async with running_engines("a") as engines, running_router(engines) as (_, url):
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/completions", data=body) as response:
            assert response.status == status
            assert (await response.json())["error"]["message"]
        assert engines[0].seen == []


async def test_oversized_body_and_unknown_path_are_openai_errors():
    async with running_engines("a") as engines, running_router(engines, max_body_bytes=100) as (_, url):
        async with aiohttp.ClientSession() as session:
            status, _, body = await ask(session, url, prompt="x" * 200)
            assert (status, json.loads(body)["error"]["type"]) == (413, "invalid_request_error")
            async with session.get(f"{url}/v1/nothing") as response:
                assert response.status == 404
                assert "error" in await response.json()


async def test_models_are_merged_and_adapters_routed_to_who_has_them():
    queries = []

    def matches(query):
        queries.append((query.model, query.lora, query.cache_salt))
        return {}

    async with running_engines("a", "b") as engines, running_router(engines, matches) as (_, url):
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{url}/v1/models") as response:
                listed = await response.json()
            assert [model["id"] for model in listed["data"]] == [MODEL, "lora-a", "lora-b"]
            for _ in range(3):
                _, headers, _ = await ask(session, url, model="lora-b", cache_salt="s")
                assert headers["x-kvsync-endpoint"] == "b"
            assert queries == [(MODEL, "lora-b", "s")] * 3


@pytest.mark.parametrize(("first", "http_ranks"), [(0, (None, None)), (2, (0, 1))])
async def test_ranks_behind_one_url_get_the_number_that_their_front_end_expects(first, http_ranks):
    engine = await FakeEngine("pod").start()
    try:
        ranks = FakeIndex([], {"pod/1": 4})
        ranks.publishers = lambda: [
            PublisherRow(
                name=f"pod/{at}", model=MODEL, http_url=engine.url, rank=first + at, http_rank=http_rank, state="live"
            )
            for at, http_rank in enumerate(http_ranks)
        ]
        async with (
            running_router([], {"pod/1": 4}, directory=InProcessDirectory(ranks)) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            _, headers, _ = await ask(session, url)
            assert headers["x-kvsync-endpoint"] == "pod/1"
            assert engine.seen[0].headers["X-data-parallel-rank"] == "1"
    finally:
        await engine.stop()


async def test_concurrent_requests_each_end_once_while_an_engine_comes_and_goes():
    async with running_engines("a", "b", "c") as engines:

        async def behave(request):
            await asyncio.sleep(0)
            return web.json_response({"ok": True})

        for engine in engines:
            engine.behave = behave
        async with running_router(engines, policy="least_request") as (router, url), aiohttp.ClientSession() as session:
            asked = [asyncio.create_task(ask(session, url)) for _ in range(60)]
            await engines[1].stop()
            asked += [asyncio.create_task(ask(session, url)) for _ in range(60)]
            statuses = [status for status, _, _ in await asyncio.gather(*asked)]
            assert statuses == [200] * 120
            assert all(
                row.requests == row.prefill_tokens == row.decode_tokens == 0 for row in router.table.statistics()
            )
