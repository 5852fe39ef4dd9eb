"""The paths of engines beside chats and completions, and what is admitted."""

import asyncio
import io
import json

import aiohttp
import pytest
import structlog
from aiohttp import web
from router_helpers import MODEL, ask, running_engines, running_router

from kvsync_router.decisions.paths import OTHER_PATHS, PROMPT_PATHS, api_of, stored_response
from kvsync_router.decisions.requests import match_request, opaque_request, parse_request
from kvsync_testkit.waiting import until


def question(api, **fields):
    request = parse_request(json.dumps({"model": "m", **fields}).encode(), api=api)
    return match_request(request, "m", None), request


# -- which prompt the newer APIs have ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("hi", [{"role": "user", "content": "hi"}]),
        ([{"role": "user", "content": "hi"}], [{"role": "user", "content": "hi"}]),
        (
            [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
            [{"role": "user", "content": "hi"}],
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": each} for each in "ab"]}],
            [{"role": "user", "content": [{"type": "text", "text": each} for each in "ab"]}],
        ),
    ],
)
def test_text_of_a_response_request_is_a_chat(given, messages):
    asked, request = question("responses", input=given, instructions="be brief", max_output_tokens=7, stream=True)
    assert asked.messages == [{"role": "system", "content": "be brief"}, *messages]
    assert (request.output_tokens, request.stream) == (7, True)
    assert question("responses", input=given)[0].messages == messages


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "hi", "tools": [{"type": "function", "name": "f"}]},
        {"input": "hi", "previous_response_id": "resp_1"},
        {"input": "hi", "reasoning": {"effort": "high"}},
        {"input": "hi", "prompt": {"id": "p"}},
        {"input": "hi", "instructions": [{"role": "user", "content": "x"}]},
        {"input": [{"type": "function_call_output", "output": "x", "role": "tool"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        {"input": []},
        {"input": None},
        {"input": [1]},
    ],
)
def test_other_response_requests_are_unknown(fields):
    asked, request = question("responses", **fields)
    assert asked is None
    assert request.unknown is not None


@pytest.mark.parametrize("system", ["be brief", [{"type": "text", "text": "be brief", "cache_control": {}}]])
def test_text_of_a_message_request_is_a_chat(system):
    turns = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "ho"}]
    asked, request = question("messages", system=system, messages=turns, max_tokens=5, metadata={"user_id": "me"})
    assert asked.messages == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho"},
    ]
    assert (request.user, request.output_tokens) == ("me", 5)


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"name": "f"}]},
        {"thinking": {"type": "enabled"}},
        {"system": [{"type": "text", "text": each} for each in "ab"]},
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
    ],
)
def test_other_message_requests_are_unknown(fields):
    asked, request = question("messages", **{"messages": [{"role": "user", "content": "hi"}], **fields})
    assert asked is None
    assert request.unknown is not None


def test_the_model_of_a_form_with_a_file_is_read():
    form = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--x--\r\n'
    assert opaque_request(form, "multipart/form-data; boundary=x").model == "whisper"
    assert opaque_request(b'{"model": "m"}', "application/json").model == "m"
    for body in (b"", b"\xff", b"[" * 100_000, b'{"model": 1}'):
        assert opaque_request(body, "application/json").model is None


def test_nothing_that_administers_an_engine_is_served():
    for path in (
        "/debug/kv/blocks",
        "/metrics",
        "/sleep",
        "/reset_prefix_cache",
        "/v1/load_lora_adapter",
        "/v1/responses/../../sleep",
        "/v1/responses/a/b",
        "//sleep",
    ):
        assert api_of(path) is None
    assert stored_response("/v1/responses/resp_1/cancel") == "resp_1"


async def test_every_path_of_an_engine_is_passed_on_and_no_other():
    async with (
        running_engines("a") as (engine,),
        running_router([engine]) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        for path in (*PROMPT_PATHS, *sorted(OTHER_PATHS), "/v1/responses/resp_1/cancel"):
            engine.seen.clear()
            status, headers, _ = await ask(session, url, f"{path}?q=1", input="x", messages=[])
            assert (status, headers["x-kvsync-endpoint"]) == (200, "a"), path
            assert engine.seen[0].path_qs == f"{path}?q=1"
            if stored_response(path) is None:
                async with session.get(url + path) as response:
                    assert response.status == 405, path
        engine.seen.clear()
        for path in ("/sleep", "/debug/faults", "/v1/nothing"):
            assert (await ask(session, url, path))[0] == 404
        assert not engine.seen


async def test_a_request_without_a_prompt_is_placed_by_load_among_those_that_serve_its_model():
    async with (
        running_engines("a", "b") as (a, b),
        running_router([a, b], {"a": 3}) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        _, headers, _ = await ask(session, url, "/v1/embeddings", model="lora-b", input="x")
        assert (headers["x-kvsync-endpoint"], headers["x-kvsync-matched-tokens"]) == ("b", "unknown")
        assert (await ask(session, url, "/v1/embeddings", model="nobody", input="x"))[0] == 404
        form = aiohttp.FormData({"model": "lora-b"})
        form.add_field("file", io.BytesIO(b"\x00" * 1000), filename="a.wav")
        async with session.post(f"{url}/v1/audio/transcriptions", data=form) as response:
            assert (response.status, response.headers["x-kvsync-endpoint"]) == (200, "b")
        assert b"a.wav" in b.bodies[-1]


async def test_headers_for_one_hop_are_not_passed_on():
    async with (
        running_engines("a") as (engine,),
        running_router([engine]) as (_, url),
        aiohttp.ClientSession() as session,
    ):
        await ask(session, url, headers={"connection": "keep-alive, X-Secret", "x-secret": "1", "x-other": "2"})
        assert "x-secret" not in engine.seen[0].headers
        assert engine.seen[0].headers["x-other"] == "2"


# -- usage of the newer APIs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 65, "input_tokens_details": {"cached_tokens": 48}, "output_tokens": 1},
        {"input_tokens": 17, "cache_read_input_tokens": 48, "output_tokens": 1},
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_usage_of_a_response_is_reported(usage, streamed):
    reports = []
    async with running_engines("a") as (engine,):

        async def answer(_request):
            if not streamed:
                return web.json_response({"usage": usage})
            event = {"type": "response.completed", "response": {"usage": usage}}
            return web.Response(body=f"data: {json.dumps(event)}\n\n", content_type="text/event-stream")

        engine.behave = answer
        async with (
            running_router([engine], {"a": 64}, record=reports.append) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            await ask(session, url, "/v1/responses", input="x", prompt=None)
            await until("it is reported", lambda: reports)
    assert (reports[0].predicted_tokens, reports[0].cached_tokens, reports[0].prompt_tokens) == (64, 48, 65)


# -- admission -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "admitted"),
    [
        ({"max_requests": 3}, 3),
        ({"max_queued": 3}, 3),
        ({"max_endpoint_requests": 2}, 4),
        ({"max_endpoint_queued": 1}, 2),
    ],
)
async def test_a_request_too_many_gets_429_and_the_others_are_answered(limits, admitted):
    async with running_engines("a", "b") as engines:

        async def wait(_request):
            await engines[0].release.wait()
            return web.json_response({})

        for engine in engines:
            engine.behave = wait
        async with running_router(engines, **limits) as (router, url), aiohttp.ClientSession() as session:
            asking = [asyncio.create_task(ask(session, url)) for _ in range(admitted)]
            await until("all wait", lambda: sum(len(engine.seen) for engine in engines) == admitted)
            status, headers, body = await ask(session, url, headers={"x-kvsync-explain": "1"})
            assert (status, headers["retry-after"]) == (429, "1")
            assert json.loads(body)["error"]["type"] == "rate_limit_error"
            assert sum(len(engine.seen) for engine in engines) == admitted
            if "max_endpoint" in next(iter(limits)):
                reasons = [row["reason"] for row in json.loads(headers["x-kvsync-explain"])["candidates"]]
                assert reasons == ["at its limit", "at its limit"]
            engines[0].release.set()
            assert [answer[0] for answer in await asyncio.gather(*asking)] == [200] * admitted
            await until("nothing is in flight", lambda: not any(row.requests for row in router.table.statistics()))
            assert not any(row.queued for row in router.table.statistics())
            assert (await ask(session, url))[0] == 200


# -- access log ----------------------------------------------------------------------------------------------------


async def test_a_line_per_request_tells_the_decision_and_nothing_of_the_prompt():
    with structlog.testing.capture_logs() as lines:
        async with (
            running_engines("a") as (engine,),
            running_router([engine], {"a": 3}, access_log=True) as (_, url),
            aiohttp.ClientSession() as session,
        ):
            parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            await ask(session, url, prompt="secret", cache_salt="salt", headers={"traceparent": parent})
            await ask(session, url, model="nobody")
            served = [line for line in lines if line["event"] == "request_served"]
            await until("both are logged", lambda: len([x for x in lines if x["event"] == "request_served"]) == 2)
    served = [line for line in lines if line["event"] == "request_served"]
    assert served[0]["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    wanted = {
        "status": 200,
        "outcome": "ok",
        "endpoint": "a",
        "policy": "kv",
        "model": MODEL,
        "predicted_tokens": 3,
        "attempts": 1,
        "path": "/v1/completions",
    }
    assert {name: served[0][name] for name in wanted} == wanted
    assert (served[1]["status"], served[1]["outcome"]) == (404, "refused")
    assert "secret" not in str(served)
    assert "salt" not in str(served)
