"""Engines that hang, fail or send nonsense: each request has one outcome, and the other engines get the traffic."""

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from router_helpers import MODEL, FakeIndex, ask, running_engines, running_router

from kvsync_router.decisions.circuit import FAILURES, FIRST_PAUSE_S, LONGEST_PAUSE_S, Circuit
from kvsync_router.decisions.endpoints import MAX_CONTEXT_TOKENS, EndpointInfo, EndpointTable
from kvsync_testkit.waiting import until

NEVER = 3600.0
"""A time-out that does not end while a test runs."""


def endpoint(router, name):
    return router.table.get(name)


def outcome(router, name, policy="kv"):
    return router.metrics.requests.labels(policy, name)._value.get()


async def hang(_request):
    await asyncio.Event().wait()


def begin_and_fall_silent(engine):
    """Let the engine send the first bytes of an answer and nothing more."""

    async def behave(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await engine.release.wait()

    engine.behave = behave


def post(session, url):
    return session.post(f"{url}/v1/completions", data=json.dumps({"model": MODEL, "prompt": "x"}))


# -- decisions -----------------------------------------------------------------------------------------------------


def test_a_circuit_opens_after_failures_in_a_row_and_is_then_tried_with_one_request():
    circuit = Circuit()
    assert [circuit.failed(0.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert not circuit.admits(FIRST_PAUSE_S - 0.01)
    now = FIRST_PAUSE_S
    assert circuit.admits(now)
    circuit.begin(now)
    assert not circuit.admits(now)
    assert not circuit.failed(now)  # it was open already
    assert not circuit.admits(now + FIRST_PAUSE_S)
    assert circuit.admits(now + 2 * FIRST_PAUSE_S)
    circuit.succeeded()
    assert circuit.admits(now)
    assert not circuit.failed(now)


def test_the_pauses_of_a_circuit_are_bounded():
    circuit = Circuit()
    for _ in range(100):
        circuit.failed(0.0)
    assert circuit.admits(LONGEST_PAUSE_S)


def test_successes_between_failures_keep_a_circuit_closed():
    circuit = Circuit()
    for _ in range(10):
        circuit.failed(0.0)
        circuit.succeeded()
    assert circuit.admits(0.0)


def table_of(*infos):
    table = EndpointTable(lambda: 0.0)
    table.update(infos)
    return table


@pytest.mark.parametrize(("stale", "checks"), [(False, 2), (True, 1)])
def test_an_endpoint_leaves_sooner_if_the_index_has_no_sign_of_life_either(stale, checks):
    table = table_of(EndpointInfo("a", "http://a", MODEL, stale=stale))
    (one,) = table.all()
    interrupted = []
    one.waiting.add(lambda: interrupted.append(one.hangs))
    left = [table.checked(one, well=False, allowed=2) for _ in range(checks)]
    assert left == [False] * (checks - 1) + [True]
    assert (one.healthy, interrupted) == (False, [True])
    table.mark_up(one)
    assert (one.healthy, one.hangs, one.left) == (True, False, False)


def test_a_stale_publisher_whose_engine_answers_stays():
    table = table_of(EndpointInfo("a", "http://a", MODEL, stale=True))
    assert not table.checked(table.all()[0], well=True, allowed=1)
    assert table.rotation(MODEL)


def test_open_circuits_are_used_if_there_is_nothing_else():
    table = table_of(EndpointInfo("a", "http://a", MODEL), EndpointInfo("b", "http://b", MODEL))
    for _ in range(FAILURES):
        table.failed(table.get("a"))
    assert [one.info.name for one in table.rotation(MODEL)] == ["b"]
    assert [one.info.name for one in table.rotation(MODEL, ["b"])] == ["a"]


def test_the_context_of_a_request_is_limited_by_what_the_endpoints_of_the_model_list():
    table = table_of(EndpointInfo("a", "http://a", MODEL), EndpointInfo("b", "http://b", MODEL))
    assert table.context_limit(MODEL) == MAX_CONTEXT_TOKENS
    table.get("a").max_model_len, table.get("b").max_model_len = 4096, 1
    assert table.context_limit(MODEL) == 4096
    table.get("b").max_model_len = 2**70
    assert table.context_limit(MODEL) == MAX_CONTEXT_TOKENS


async def test_a_large_picture_is_no_prompt_of_millions_of_tokens():
    picture = {"type": "image_url", "image_url": {"url": "x" * 900_000}}
    async with running_engines("a") as (engine,):
        engine.models = json.dumps({"data": [{"id": MODEL, "max_model_len": 512}]}).encode()
        engine.behave = hang
        async with running_router([engine]) as (router, url), aiohttp.ClientSession() as session:
            messages = [{"role": "user", "content": [picture]}]
            asking = asyncio.create_task(ask(session, url, "/v1/chat/completions", messages=messages))
            await until("the request waits", lambda: engine.seen)
            assert endpoint(router, "a").prefill_tokens == endpoint(router, "a").decode_tokens == 512
            asking.cancel()


# -- engines that hang ---------------------------------------------------------------------------------------------


async def test_an_engine_that_hangs_leaves_and_its_waiting_requests_are_answered_elsewhere():
    async with running_engines("a", "b") as (first, second):
        first.behave = hang
        settings = {"health_s": 0.02, "health_timeout_s": 0.1, "first_byte_timeout_s": NEVER, "probe_s": NEVER}
        async with (
            running_router([first, second], {"a": 4}, **settings) as (router, url),
            aiohttp.ClientSession() as session,
        ):
            asking = asyncio.create_task(ask(session, url))
            await until("the request waits", lambda: first.seen)
            first.hangs = True
            status, headers, _ = await asking
            assert (status, headers["x-kvsync-endpoint"]) == (200, "b")
            assert not endpoint(router, "a").healthy
            await until("the attempt was given up", lambda: first.cancelled == 1)
            assert (await ask(session, url))[1]["x-kvsync-endpoint"] == "b"
            assert len(first.seen) == 1


async def test_an_engine_that_hangs_behind_a_good_health_costs_one_time_out_per_attempt_and_then_nothing():
    async with running_engines("a", "b") as (first, second):
        first.behave = hang
        settings = {"first_byte_timeout_s": 0.05, "output_token_s": 0.0}
        async with (
            running_router([first, second], {"a": 4}, **settings) as (router, url),
            aiohttp.ClientSession() as session,
        ):
            router.table._clock = lambda: 0.0  # no pause of a circuit ends
            for _ in range(FAILURES + 4):
                status, headers, _ = await ask(session, url)
                assert (status, headers["x-kvsync-endpoint"]) == (200, "b")
            assert len(first.seen) == FAILURES
            assert endpoint(router, "a").healthy


async def test_an_engine_that_only_fails_is_left_out_even_if_its_failures_are_passed_on():
    async with running_engines("a") as (engine,):

        async def behave(_request):
            return web.Response(status=503)

        engine.behave = behave
        async with running_router([engine], attempts=1) as (router, url), aiohttp.ClientSession() as session:
            router.table._clock = lambda: 0.0
            for _ in range(FAILURES):
                assert (await ask(session, url))[0] == 503
            assert not endpoint(router, "a").circuit.admits(0.0)


async def test_an_answer_that_has_begun_is_never_asked_for_again():
    async with running_engines("a", "b") as (first, second):
        begin_and_fall_silent(first)
        settings = {"health_s": 0.02, "health_timeout_s": 0.1, "left_idle_timeout_s": 0.05, "idle_timeout_s": NEVER}
        async with (
            running_router([first, second], {"a": 4}, **settings) as (router, url),
            aiohttp.ClientSession() as session,
            post(session, url) as response,
        ):
            assert await response.content.readany() == b"data: 1\n\n"
            first.hangs = True
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
            assert second.seen == []
            await until("counted", lambda: outcome(router, "cut") == 1)


async def test_a_silent_answer_ends():
    async with running_engines("a") as (engine,):
        begin_and_fall_silent(engine)
        async with (
            running_router([engine], idle_timeout_s=0.05) as (router, url),
            aiohttp.ClientSession() as session,
            post(session, url) as response,
        ):
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
            await until("counted", lambda: outcome(router, "cut") == 1)
            await until("upstream cancelled", lambda: engine.cancelled == 1)


async def test_a_silent_answer_ends_soon_after_its_publisher_has_left():
    async with running_engines("a") as (engine,):
        begin_and_fall_silent(engine)
        index = FakeIndex([engine])
        settings = {"idle_timeout_s": NEVER, "left_idle_timeout_s": 0.05}
        async with (
            running_router([engine], index=index, **settings) as (router, url),
            aiohttp.ClientSession() as session,
            post(session, url) as response,
        ):
            assert await response.content.readany() == b"data: 1\n\n"
            index._engines = []
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()
            await until("counted", lambda: outcome(router, "cut") == 1)


# -- engines that send nonsense ------------------------------------------------------------------------------------


async def raw_engine(head):
    """An engine that answers every POST with these bytes."""

    async def serve(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"POST"):
            writer.write(head)
        else:
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{"data":[]}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.name, server.url = "raw", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    return server


HEADS = {
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-length: 2\r\n\r\n{}",
    "redirect": b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 2\r\n\r\n{}",
    "control character in a value": b"HTTP/1.1 200 OK\r\nx-odd: a\x01b\r\ncontent-length: 2\r\n\r\n{}",
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
async def test_nonsense_is_one_clean_error_with_an_outcome(head):
    engine = await raw_engine(head)
    try:
        async with running_router([engine], attempts=1) as (router, url), aiohttp.ClientSession() as session:
            status, headers, body = await ask(session, url)
            assert (status, headers["x-kvsync-policy"]) == (502, "kv")
            assert json.loads(body)["error"]["type"] == "bad_gateway"
            await until("the outcome is counted", lambda: outcome(router, "failed") == 1)
    finally:
        engine.close()


async def test_nonsense_of_one_engine_is_retried_at_another():
    engine = await raw_engine(HEADS["status 999"])
    try:
        async with (
            running_engines("b") as (good,),
            running_router([engine, good], {"raw": 4}) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            status, headers, _ = await ask(session, url)
            assert (status, headers["x-kvsync-endpoint"]) == (200, "b")
    finally:
        engine.close()


async def test_an_unforeseen_error_has_an_outcome_and_an_answer(monkeypatch):
    async with running_engines("a") as engines, running_router(engines) as (router, url):

        def broken(*_args):
            raise ZeroDivisionError("broken")

        monkeypatch.setattr(router.picker, "pick", broken)
        async with aiohttp.ClientSession() as session:
            status, _, body = await ask(session, url)
        assert (status, json.loads(body)["error"]["code"]) == (502, "502")
        await until("the outcome is counted", lambda: outcome(router, "failed") == 1)


async def test_deep_json_is_refused_with_an_outcome():
    deep = b'{"model": "test-model", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    async with running_engines("a") as engines, running_router(engines) as (router, url):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/chat/completions", data=deep) as response,
        ):
            assert response.status == 400
            assert (await response.json())["error"]["message"] == "the request body is nested too deeply"
        await until("the outcome is counted", lambda: outcome(router, "refused") == 1)


async def test_a_limit_of_two_billion_tokens_steers_nothing():
    async with running_engines("a", "b") as engines:
        for engine in engines:
            engine.behave = hang
        async with running_router(engines) as (router, url), aiohttp.ClientSession() as session:
            asking = asyncio.create_task(ask(session, url, max_tokens=2**31 - 1))
            await until("the request waits", lambda: sum(len(engine.seen) for engine in engines) == 1)
            assert max(row.decode_tokens for row in router.table.statistics()) <= 4 + 4096
            asking.cancel()
