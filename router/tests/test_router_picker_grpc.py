"""The picker on a real port, with a gRPC client that plays the gateway."""

import asyncio
import json
import math

import aiohttp
import grpc
import msgspec
import pytest
from picker_helpers import (
    BUFFERED,
    PROMPT,
    address,
    destination,
    request_body,
    request_headers,
    response_body,
    response_headers,
    running_picker,
    set_headers,
)
from router_helpers import MODEL, FakeIndex, ask, running_engines, running_router

from kvsync_indexer.api import PublisherRow
from kvsync_router.errors import ScorerUnavailableError
from kvsync_testkit.waiting import until


def immediate(answer):
    """(status, error) of an answer to the client."""
    return answer.immediate_response.status.code, json.loads(answer.immediate_response.body)["error"]


async def test_the_endpoint_with_the_longest_prefix_comes_first_and_fall_backs_follow():
    async with (
        running_engines("a", "b", "c") as (a, b, c),
        running_picker([a, b, c], {"b": 4, "c": 2}) as gateway,
    ):
        assert await gateway.pick() == ",".join(map(address, (b, c, a)))


async def test_buffered_and_streamed_requests_go_to_the_same_place():
    async with running_engines("a", "b") as (a, b), running_picker([a, b], {"b": 4}) as gateway:
        (head, body), _ = await gateway.ask(request_headers(BUFFERED), request_body(PROMPT), answers=2)
        assert not head.request_headers.response.header_mutation.set_headers
        assert destination(body) == await gateway.pick() == f"{address(b)},{address(a)}"


async def test_the_number_of_addresses_is_bounded():
    async with running_engines("a", "b", "c") as engines:
        async with running_picker(engines, {"b": 4}, attempts=2) as gateway:
            assert len((await gateway.pick()).split(",")) == 2
        async with running_picker(engines, {"b": 4}, single_address=True) as gateway:
            assert await gateway.pick() == address(engines[1])


async def test_policies_choose_as_behind_the_proxy():
    async with running_engines("a", "b", "c") as engines:
        for policy in ("round_robin", "random", "least_request", "kv"):
            async with (
                running_picker(engines, policy=policy, seed=7) as gateway,
                running_router(engines, policy=policy, seed=7) as (_, url),
                aiohttp.ClientSession() as session,
            ):
                by_port = {address(engine): engine.name for engine in engines}
                picked, proxied = [], []
                for _ in range(6):
                    (head, *_), stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
                    picked.append(by_port[destination(head).split(",")[0]])
                    await finish(stream)
                    proxied.append((await ask(session, url))[1]["x-kvsync-endpoint"])
                assert picked == proxied, policy


async def finish(stream, *answer):
    """Let the request of a stream be answered, and end the stream."""
    for message in answer or (response_headers(), response_body(b"{}")):
        await stream.write(message)
        await stream.read()
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


@pytest.mark.parametrize("form", [list, ",".join], ids=["list", "string"])
async def test_only_endpoints_of_the_subset_are_picked(form):
    async with running_engines("a", "b", "c") as (a, b, c), running_picker([a, b, c], {"b": 4}) as gateway:
        allowed = form([address(a), address(c), "10.9.9.9:80"])
        picked = await gateway.pick(request_headers(subset=allowed))
        assert sorted(picked.split(",")) == sorted((address(a), address(c)))


@pytest.mark.parametrize("hint", ["", [], ["10.9.9.9:80"], "nonsense", 5, ["127.0.0.1:1"]])
async def test_a_subset_without_an_endpoint_gets_503(hint):
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        (answer,), stream = await gateway.ask(request_headers(subset=hint), request_body(PROMPT), answers=1)
        status, error = immediate(answer)
        assert (status, error["type"], error["code"]) == (503, "service_unavailable", "503")
        assert "subset" in error["message"]
        assert await stream.read() is grpc.aio.EOF


async def test_a_subset_entry_without_a_port_permits_the_whole_address():
    async with running_engines("a", "b") as (a, b), running_picker([a, b], {"b": 4}) as gateway:
        assert await gateway.pick(request_headers(subset=["127.0.0.1"])) == f"{address(b)},{address(a)}"


async def test_without_an_endpoint_the_client_gets_503():
    async with running_picker([]) as gateway:
        for headers, body in ((request_headers(), PROMPT), (request_headers(BUFFERED), PROMPT)):
            answers, _ = await gateway.ask(headers, request_body(body), answers=1)
            if answers[0].HasField("request_headers"):  # buffered: the refusal is the answer to the body
                answers = [await _.read()]
            assert immediate(answers[0])[0] == 503
        (answer,), _ = await gateway.ask(request_headers(end=True), answers=1)
        assert immediate(answer)[0] == 503


async def test_an_unknown_model_is_the_clients_error_as_behind_the_proxy():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        body = json.dumps({"model": "other", "prompt": "x"}).encode()
        (answer,), _ = await gateway.ask(request_headers(), request_body(body), answers=1)
        assert immediate(answer) == (
            404,
            {"message": "The model `other` does not exist.", "type": "NotFoundError", "param": "model", "code": "404"},
        )


async def test_a_request_too_many_is_shed_with_429_until_one_has_ended():
    async with running_engines("a") as (a,), running_picker([a], max_requests=1) as gateway:
        _, first = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        (answer,), _ = await gateway.ask(request_headers(), request_body(PROMPT), answers=1)
        assert immediate(answer)[0] == 429
        await finish(first)
        await until("the first request is over", lambda: gateway.picker.processor.streams == 0)
        assert await gateway.pick() == address(a)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        b'{"model": 5}',
        b'{"messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"x" * 200_000,
    ],
    ids=["empty", "text", "list", "bytes", "wrong type", "deep", "long"],
)
async def test_a_body_that_cannot_be_read_is_placed_by_load_and_comes_back_unchanged(body):
    async with (
        running_engines("a", "b") as (a, b),
        running_picker([a, b], {"b": 99}, max_body_bytes=100_000) as gateway,
    ):
        stream = gateway.stream()
        await stream.write(request_headers(content_length="12"))  # a length that is not true changes nothing
        for start in range(0, max(len(body), 1), 50_000):
            await stream.write(request_body(body[start : start + 50_000], end=start + 50_000 >= len(body)))
        head = await stream.read()
        assert sorted(destination(head).split(",")) == sorted((address(a), address(b)))
        back, end = b"", False
        while not end:
            piece = (await stream.read()).request_body.response.body_mutation.streamed_response
            back, end = back + piece.body, piece.end_of_stream
        assert back == body
        await stream.write(response_headers())
        told = set_headers((await stream.read()).response_headers.response.header_mutation)
        assert told["x-kvsync-matched-tokens"] == "unknown"
        stream.cancel()


async def test_load_spreads_requests_that_cannot_be_read():
    async with running_engines("a", "b") as engines, running_picker(engines) as gateway:
        picked = set()
        for _ in range(2):
            (head,), _stream = await gateway.ask(request_headers(end=True, path="/v1/models"), answers=1)
            picked.add(destination(head).split(",")[0])
        assert picked == set(map(address, engines))


async def test_an_index_that_is_away_costs_a_request_nothing_but_the_match():
    class Away:
        async def score(self, _request):
            raise ScorerUnavailableError("away")

    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        gateway.routing.picker._scorer = Away()
        _, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        await stream.write(response_headers())
        told = set_headers((await stream.read()).response_headers.response.header_mutation)
        assert (told["x-kvsync-policy"], told["x-kvsync-fallback"]) == ("least_request", "index-away")
        stream.cancel()


async def test_the_load_of_a_request_is_on_the_endpoint_that_serves_it_and_the_first_leaves_the_rotation():
    async with running_engines("a", "b") as (a, b), running_picker([a, b], {"b": 4}, probe_s=60) as gateway:
        table = gateway.routing.table
        _, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        assert (table.get("a").requests, table.get("b").requests) == (0, 1)
        await stream.write(response_headers(served=address(a)))
        told = set_headers((await stream.read()).response_headers.response.header_mutation)
        assert told["x-kvsync-endpoint"] == "a"
        assert (table.get("a").requests, table.get("b").requests) == (1, 0)
        assert not table.get("b").healthy
        await finish(stream, response_body(b"{}"))
        await until("the request is over", lambda: table.get("a").requests == 0)
        assert await gateway.pick() == address(a)


async def test_a_failed_answer_counts_against_the_endpoint():
    async with running_engines("a", "b") as (a, b), running_picker([a, b], {"b": 4}) as gateway:
        for _ in range(3):
            _, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
            await finish(stream, response_headers(503, served=address(b)), response_body(b"{}"))
        assert (await gateway.pick()).startswith(address(a))


USAGE = {"prompt_tokens": 40, "prompt_tokens_details": {"cached_tokens": 32}}


@pytest.mark.parametrize("kind", ["json", "stream"])
async def test_the_usage_confirms_the_prediction_for_the_endpoint_that_served(kind):
    reports = []
    if kind == "json":
        content, pieces = "application/json", [json.dumps({"usage": USAGE}).encode()]
    else:
        content = "text/event-stream"
        pieces = [
            b"data: {}\n\n" * 5000,
            b"data: " + json.dumps({"usage": USAGE}).encode() + b"\n\ndata: [DONE]\n\n",
            b"",
        ]
    async with (
        running_engines("a", "b") as (a, b),
        running_picker([a, b], {"a": 16, "b": 32}, record=reports.append) as gateway,
    ):
        _, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        bodies = [response_body(piece, end=piece is pieces[-1]) for piece in pieces]
        await stream.write(response_headers(200, content, served=address(a)))
        await stream.read()
        for message in bodies:
            await stream.write(message)
            length = 0
            while length < len(message.response_body.body) or not length:
                streamed = (await stream.read()).response_body.response.body_mutation.streamed_response
                length += len(streamed.body) or math.inf
        await stream.done_writing()
        await until("the report was made", lambda: reports)
    (report,) = reports
    assert (report.publisher, report.predicted_tokens, report.cached_tokens) == ("a", 16, 32)


async def test_ranks_that_share_an_address_are_told_apart_by_a_header():
    class Ranks(FakeIndex):
        def publishers(self):
            rows = [
                {"name": f"{one.name}/{rank}", "model": MODEL, "state": "live", "http_url": one.url, "rank": rank}
                for one in self._engines
                for rank in (0, 1)
            ]
            return msgspec.convert(rows, list[PublisherRow])

    async with running_engines("a", "b") as (a, b), running_picker([a, b], {"b/1": 4}) as gateway:
        gateway.routing.keeper._directory._index = Ranks([a, b])
        await gateway.routing.keeper.refresh()
        (head, _), stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        assert destination(head) == f"{address(b)},{address(a)}"
        assert set_headers(head.request_headers.response.header_mutation)["x-data-parallel-rank"] == "1"
        stream.cancel()


async def test_a_client_that_leaves_gives_its_load_back():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        _, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        assert gateway.routing.table.get("a").requests == 1
        stream.cancel()
        await until("the load is gone", lambda: gateway.routing.table.get("a").requests == 0)


async def test_a_stream_that_is_cut_at_any_step_leaves_nothing_behind():
    steps = [
        request_headers(),
        request_body(PROMPT[:5], end=False),
        request_body(PROMPT[5:]),
        response_headers(),
        response_body(b"x", end=False),
        response_body(b"", end=True),
    ]
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        for count in range(len(steps) + 1):
            for politely in (True, False):
                stream = gateway.stream()
                for message in steps[:count]:
                    await stream.write(message)
                if politely:
                    await stream.done_writing()
                    while await stream.read() is not grpc.aio.EOF:
                        pass
                else:
                    stream.cancel()
        await until("every stream has ended", lambda: gateway.picker.processor.streams == 0)
        assert gateway.picker.processor._budget.held_bytes == 0
        assert gateway.picker.processor._placer.in_flight == 0
        assert gateway.routing.table.get("a").requests == 0
        assert await gateway.pick() == address(a)


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 40, b"\x12\xff\xff\xff\xff\x0f", b"\x0a\x03abc", b"\x22\x80", bytes(range(256))],
    ids=["ones", "length", "unknown field", "cut", "all bytes"],
)
async def test_malformed_messages_end_their_stream_and_no_other(data):
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        _, healthy = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
        stream = gateway.raw_stream()
        await stream.write(data)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() in {
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.UNKNOWN,
        }
        await finish(healthy)
        assert await gateway.pick() == address(a)


async def test_messages_in_an_impossible_order_are_refused_with_a_status():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        stream = gateway.stream()
        await stream.write(request_body(PROMPT))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "a body came before the headers of its request",
        )


async def test_a_bomb_of_headers_is_refused_and_a_large_one_passes():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        bomb = request_headers()
        for number in range(50_000):
            bomb.request_headers.headers.headers.add(key=f"x-{number}", raw_value=b"v" * 20)
        (answer,), _ = await gateway.ask(bomb, answers=1)
        assert immediate(answer)[0] == 431
        assert await gateway.pick(request_headers(x_large="v" * 4_000_000)) == address(a)


async def test_a_message_beyond_the_limit_ends_its_stream_only(monkeypatch):
    monkeypatch.setattr("kvsync_router.picker.server.MESSAGE_BYTES", 100_000)
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        stream = gateway.stream()
        await stream.write(request_headers(BUFFERED))
        assert (await stream.read()).HasField("request_headers")
        await stream.write(request_body(b"x" * 200_000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await gateway.pick() == address(a)


async def test_an_unforeseen_error_is_one_answer_to_one_client():
    async with running_engines("a") as (a,), running_picker([a]) as gateway:
        picker = gateway.routing.picker
        decide, picker.decide = picker.decide, None
        (answer,), _ = await gateway.ask(request_headers(), request_body(PROMPT), answers=1)
        assert immediate(answer)[0] == 502
        picker.decide = decide
        assert await gateway.pick() == address(a)


async def test_many_streams_at_once():
    async with running_engines("a", "b") as engines, running_picker(engines) as gateway:

        async def one():
            (head, *_), stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=2)
            await finish(stream, response_headers(served=destination(head).split(",")[0]), response_body(b"{}"))

        await asyncio.gather(*(one() for _ in range(200)))
        table = gateway.routing.table
        await until("no load is left", lambda: table.get("a").requests == table.get("b").requests == 0)
        assert table.get("a").served + table.get("b").served == 200
