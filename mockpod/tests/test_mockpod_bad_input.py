"""Invalid requests: each gets a typed error that names the field, the engine continues, and no block is lost."""

import asyncio
import socket

import pytest
from mockpod_helpers import start_pod

from kvsync_testkit.waiting import until


@pytest.fixture
async def pod():
    async with start_pod(max_model_len=256, num_gpu_blocks_override=64, max_num_batched_tokens=256) as running:
        yield running
        rank = running.pod.ranks[0]
        await until("the engine is idle", lambda: rank.load == 0 and not rank.engine.has_work())
        assert rank.engine.statistics().free_blocks == 63


async def raw(pod, path, data, **headers):
    async with pod.client.post(pod.url + path, data=data, headers=headers) as answer:
        return answer.status, (await answer.json())["error"]


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"", None, "not JSON"),
        (b"{", None, "not JSON"),
        (b'{"prompt": "x"', None, "not JSON"),
        (b"\xff\xfe", None, "JSON"),
        (b'{"prompt": "\xff"}', None, "JSON"),
        (b"[" * 100_000, None, "object"),
        (b"[]", None, "object"),
        (b"{}", "prompt", "a string or a list"),
        (b'{"prompt": []}', "prompt", "length"),
        (b'{"prompt": ""}', "prompt", "cannot be empty"),
        (b'{"prompt": ["a", 1]}', "prompt", "only strings, only token ids"),
        (b'{"prompt": [1, -5]}', "prompt[1]", ">= 0"),
        (b'{"prompt": [4294967296]}', "prompt[0]", "<= 4294967295"),
        (b'{"prompt": "x", "n": 0}', "n", ">= 1"),
        (b'{"prompt": "x", "n": 129}', "n", "<= 128"),
        (b'{"prompt": ["a", "b", "c"], "n": 128}', "n", "more than 256 generations"),
        (b'{"prompt": "x", "max_tokens": 0}', "max_tokens", "at least 1"),
        (b'{"prompt": "x", "max_tokens": "many"}', "max_tokens", "int"),
        (b'{"prompt": "x", "stop": [""]}', "stop", "empty stop string"),
        (b'{"prompt": "x", "temperature": -1}', "temperature", ">= 0"),
        (b'{"prompt": "x", "suffix": "y"}', "suffix", "not supported"),
        (b'{"prompt": "x", "cache_salt": ""}', "cache_salt", "1 to 128"),
        (b'{"prompt": "x", "cache_salt": "a/b"}', "cache_salt", "1 to 128"),
    ],
)
async def test_a_bad_completion_names_its_field(pod, body, param, says):
    status, error = await raw(pod, "/v1/completions", body)
    assert status == 400
    assert error["type"] == "BadRequestError"
    assert (error["param"], error["code"]) == (param, 400)
    assert says in error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "length"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "film"}]}], "messages[0].content[0].type: 'film'"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [7]}], "messages[0].content[0]: must be an object"),
    ],
)
async def test_a_bad_conversation_names_the_message(pod, messages, says):
    status, answer = await pod.post("/v1/chat/completions", {"messages": messages})
    assert status == 400
    assert says in answer["error"]["message"]


@pytest.mark.parametrize("size", [256, 257, 5000])
async def test_a_prompt_that_leaves_no_room_is_refused_not_cut(pod, size):
    for body in ({"prompt": [7] * size}, {"prompt": [[1], [7] * size]}):
        status, answer = await pod.post("/v1/completions", body)
        assert status == 400
        assert f"maximum context length is 256 tokens. However, the prompt has {size}" in answer["error"]["message"]
    assert (await pod.post("/v1/completions", {"prompt": [7] * 255}))[0] == 200


async def test_unknown_models_adapters_ranks_and_paths(pod):
    assert (await pod.post("/v1/completions", {"prompt": "x", "model": "m" * 5000}))[0] == 404
    for rank in ("x", "1.5", "9" * 5000):
        assert (await pod.post("/v1/completions", {"prompt": "x"}, **{"X-data-parallel-rank": rank}))[0] == 200
    for rank in ("1", "-1", "9" * 4000):
        status, answer = await pod.post("/v1/completions", {"prompt": "x"}, **{"X-data-parallel-rank": rank})
        assert (status, answer["error"]["param"]) == (400, "X-data-parallel-rank")
        assert len(answer["error"]["message"]) < 200
    assert (await pod.get("/v1/nothing"))[0] == 404
    async with pod.client.get(pod.url + "/v1/completions") as answer:
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_a_full_queue_is_429_and_takes_nothing_in_part():
    async with start_pod(mock_max_waiting=3, max_num_seqs=1) as pod:
        long = asyncio.create_task(
            pod.post("/v1/completions", {"prompt": "x", "max_tokens": 20_000, "ignore_eos": True})
        )
        rank = pod.pod.ranks[0]
        await until("the request runs", lambda: rank.engine.statistics().running == 1)
        status, answer = await pod.post("/v1/completions", {"prompt": "y", "n": 5})
        assert (status, answer["error"]["type"]) == (429, "RateLimitError")
        assert rank.load == 1
        assert rank.engine.statistics().waiting == 0
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)


async def test_a_huge_body_is_413_before_it_is_read():
    async with start_pod(mock_max_body_bytes=10_000) as pod:
        status, error = await raw(pod, "/v1/completions", b"x" * 20_000)
        assert (status, error["type"]) == (413, "RequestTooLargeError")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(pod.url.rsplit(":", 1)[1]))
        writer.write(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(6):
            writer.write(b"7d0\r\n" + b"y" * 2000 + b"\r\n")
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await writer.wait_closed()


async def test_a_client_that_stops_reading_is_disconnected_and_delays_no_other():
    async with start_pod(mock_stall_timeout=0.4, max_model_len=32_768) as pod:
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", int(pod.url.rsplit(":", 1)[1])))
            body = b'{"prompt": "x", "max_tokens": 30000, "ignore_eos": true, "stream": true, "n": 8}'
            deaf.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            rank = pod.pod.ranks[0]
            await until("all generations are queued", lambda: rank.load == 8)
            status, _ = await pod.post("/v1/completions", {"prompt": "y", "max_tokens": 3})
            assert status == 200
            await until("the engine is idle", lambda: rank.load == 0 and not rank.engine.has_work(), deadline_s=30)
        assert rank.engine.statistics().free_blocks == rank.engine.statistics().total_blocks
        assert pod.pod.server_load == 0


async def test_malformed_http_does_not_affect_other_requests(pod):
    for data in (
        b"\0" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(pod.url.rsplit(":", 1)[1]))
        writer.write(data)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
    assert (await pod.post("/v1/completions", {"prompt": "x"}))[0] == 200
