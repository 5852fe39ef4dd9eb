"""`/v1/completions` and `/v1/chat/completions`, whole and streamed, on a real socket."""

import asyncio

import pytest
from mockpod_helpers import start_pod

from kvsync_testkit.waiting import until

PROMPT = "The quick brown fox jumps over the lazy dog and runs back to where it came from"


@pytest.fixture
async def pod():
    async with start_pod(enable_prompt_tokens_details=True) as running:
        yield running


async def test_a_completion_has_openai_s_shape_and_counts(pod):
    status, answer = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 12})
    assert status == 200
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    prompt_tokens = len(pod.pod.tokenizer.encode(PROMPT))
    assert answer["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 12,
        "total_tokens": prompt_tokens + 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert len(pod.pod.tokenizer.encode(choice["text"])) == 12


async def test_token_ids_and_text_mean_the_same_prompt(pod):
    ids = pod.pod.tokenizer.encode(PROMPT)
    _, by_text = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 8})
    _, by_ids = await pod.post("/v1/completions", {"prompt": ids, "max_tokens": 8, "return_token_ids": True})
    assert by_ids["choices"][0]["text"] == by_text["choices"][0]["text"]
    assert by_ids["choices"][0]["prompt_token_ids"] == ids
    assert pod.pod.tokenizer.decode(by_ids["choices"][0]["token_ids"]) == by_ids["choices"][0]["text"]
    cached = by_ids["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached == (len(ids) - 1) // 16 * 16 > 0


async def test_a_stream_has_the_text_of_the_whole_answer_a_token_a_chunk(pod):
    body = {"prompt": PROMPT, "max_tokens": 12}
    _, whole = await pod.post("/v1/completions", body)
    chunks = await pod.stream("/v1/completions", {**body, "stream_options": {"include_usage": True}})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) == whole["choices"][0]["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]] == [None] * 11 + ["length"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 12


async def test_continuous_usage_and_token_ids_ride_on_every_chunk(pod):
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = await pod.stream(
        "/v1/completions", {"prompt": PROMPT, "max_tokens": 5, "stream_options": options, "return_token_ids": True}
    )
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks] == [1, 2, 3, 4, 5, 5]
    ids = [token for chunk in chunks[:-1] for token in chunk["choices"][0]["token_ids"]]
    assert len(ids) == 5
    assert "prompt_token_ids" in chunks[0]["choices"][0]
    assert "prompt_token_ids" not in chunks[1]["choices"][0]


async def test_several_prompts_times_n_are_numbered_and_differ(pod):
    _, answer = await pod.post("/v1/completions", {"prompt": [PROMPT, "Something else"], "n": 2, "max_tokens": 9})
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({choice["text"] for choice in answer["choices"]}) == 4
    both = len(pod.pod.tokenizer.encode(PROMPT)) + len(pod.pod.tokenizer.encode("Something else"))
    assert answer["usage"]["prompt_tokens"] == both
    assert answer["usage"]["completion_tokens"] == 36
    chunks = await pod.stream("/v1/completions", {"prompt": [PROMPT, "Something else"], "n": 2, "max_tokens": 9})
    streamed = dict.fromkeys(range(4), "")
    for chunk in chunks:
        streamed[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert list(streamed.values()) == [choice["text"] for choice in answer["choices"]]


async def test_a_stop_string_cuts_the_text_and_ends_the_request(pod):
    _, free = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 40})
    text = free["choices"][0]["text"]
    stop = text[20:27]
    body = {"prompt": PROMPT, "max_tokens": 40, "stop": ["never said", stop]}
    _, cut = await pod.post("/v1/completions", body)
    assert cut["choices"][0]["text"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["stop_reason"] == stop
    assert cut["usage"]["completion_tokens"] < 40
    _, kept = await pod.post("/v1/completions", {**body, "include_stop_str_in_output": True})
    assert kept["choices"][0]["text"] == text[: text.index(stop) + len(stop)]
    chunks = await pod.stream("/v1/completions", body)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == cut["choices"][0]["text"]
    assert chunks[-1]["choices"][0]["stop_reason"] == stop
    await until("no request is in flight", lambda: pod.pod.ranks[0].load == 0)


async def test_stop_token_ids_end_with_the_token(pod):
    _, free = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 20, "return_token_ids": True})
    ids = free["choices"][0]["token_ids"]
    _, cut = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 20, "stop_token_ids": [ids[6]]})
    choice = cut["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["stop_reason"] == ids[6]
    assert cut["usage"]["completion_tokens"] == ids.index(ids[6]) + 1


async def test_answers_end_by_themselves_unless_ignore_eos_is_set():
    async with start_pod(mock_output_tokens=10) as pod:
        _, ended = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 100})
        assert ended["choices"][0]["finish_reason"] == "stop"
        assert 5 <= ended["usage"]["completion_tokens"] <= 16
        assert "<|" not in ended["choices"][0]["text"]
        _, longer = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 100, "min_tokens": 50})
        assert longer["usage"]["completion_tokens"] == 51, "fifty tokens and the end"
        _, free = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 100, "ignore_eos": True})
        assert (free["choices"][0]["finish_reason"], free["usage"]["completion_tokens"]) == ("length", 100)


async def test_echo_puts_the_prompt_first(pod):
    _, plain = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 4})
    _, echoed = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 4, "echo": True})
    assert echoed["choices"][0]["text"] == PROMPT + plain["choices"][0]["text"]
    _, alone = await pod.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 0, "echo": True})
    assert alone["choices"][0]["text"] == PROMPT
    chunks = await pod.stream("/v1/completions", {"prompt": PROMPT, "max_tokens": 4, "echo": True})
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == echoed["choices"][0]["text"]


async def test_chat_whole_and_streamed_agree_and_hit_their_own_past(pod):
    messages = [{"role": "system", "content": "You are brief. " * 10}, {"role": "user", "content": "Tell me a story."}]
    status, first = await pod.post("/v1/chat/completions", {"messages": messages, "max_tokens": 40})
    assert status == 200
    message = first["choices"][0]["message"]
    assert message["role"] == "assistant"
    assert first["object"] == "chat.completion"
    chunks = await pod.stream("/v1/chat/completions", {"messages": messages, "max_tokens": 40})
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == message["content"]
    again = [*messages, {"role": "assistant", "content": message["content"]}, {"role": "user", "content": "Go on."}]
    _, second = await pod.post("/v1/chat/completions", {"messages": again, "max_completion_tokens": 4})
    before = first["usage"]["prompt_tokens"] + 40
    hit = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert hit == (before - 1) // 16 * 16, "the answer itself is hit: its last token was never computed"


async def test_the_same_seed_gives_the_same_words_on_another_pod(pod):
    body = {"prompt": PROMPT, "max_tokens": 30}
    _, here = await pod.post("/v1/completions", body)
    async with start_pod() as other, start_pod(mock_seed=99) as different:
        _, there = await other.post("/v1/completions", body)
        _, elsewhere = await different.post("/v1/completions", body)
    assert there["choices"][0]["text"] == here["choices"][0]["text"]
    assert elsewhere["choices"][0]["text"] != here["choices"][0]["text"]


async def test_max_tokens_is_clipped_to_what_is_left():
    async with start_pod(max_model_len=64, max_num_batched_tokens=256) as pod:
        _, answer = await pod.post("/v1/completions", {"prompt": [7] * 50, "max_tokens": 1000, "ignore_eos": True})
        assert answer["usage"]["completion_tokens"] == 14


async def test_a_client_that_goes_away_ends_its_request(pod):
    rank = pod.pod.ranks[0]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(pod.url.rsplit(":", 1)[1]))
    body = b'{"prompt": "never ending", "max_tokens": 30000, "ignore_eos": true, "stream": true}'
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write(head + body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert rank.load == 1
    writer.close()
    await until("the engine is idle", lambda: rank.load == 0 and not rank.engine.has_work())
    stats = rank.engine.statistics()
    assert stats.free_blocks == stats.total_blocks
    assert stats.finished["abort"] == 1
    assert 'request_success_total{model_name="kvsync/mock",engine="0",finished_reason="abort"} 1.0' in await pod.text(
        "/metrics"
    )


async def test_http_is_served_while_the_engine_is_always_busy(pod):
    engine = pod.pod.ranks[0].engine

    async def keep_busy():
        while True:
            await pod.post("/v1/completions", {"prompt": [5] * 100, "max_tokens": 20_000, "ignore_eos": True, "n": 4})

    busy = asyncio.create_task(keep_busy())
    await until("the engine works", engine.has_work)
    before = engine.statistics().steps
    for _ in range(20):
        status, _ = await pod.get("/version")
        assert status == 200
    assert engine.statistics().steps > before, "the engine stepped in between"
    busy.cancel()
    await asyncio.gather(busy, return_exceptions=True)
