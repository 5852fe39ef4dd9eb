"""The official clients of OpenAI, through the router, before mock engines: streams, cancellation, errors, responses."""

import contextlib

import openai
import pytest

from kvsync_testkit.ports import free_port
from kvsync_testkit.processes import HttpPort, Index, MockEngine, stopping
from kvsync_testkit.waiting import until, wait_until

MODEL = "mock-model"
TALK = [{"role": "user", "content": "Tell me about caches. " * 40}]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """(router URL, engines): an index with a router in its process, before two engines."""
    folder = tmp_path_factory.mktemp("openai")
    engines = [MockEngine(model=MODEL, enable_prompt_tokens_details=True) for _ in range(2)]
    port = free_port()
    with stopping(*engines), contextlib.ExitStack() as stack:
        index = Index(*engines, folder=folder, router_port=port)
        stack.enter_context(stopping(index.live()))
        router = HttpPort(port).ready("/readyz")
        yield router, engines


@pytest.fixture
async def client(lab):
    async with openai.AsyncOpenAI(base_url=f"{lab[0].url}/v1", api_key="none", max_retries=0) as one:
        yield one


async def test_chats_whole_and_streamed_are_the_same(client):
    fields = {"model": MODEL, "messages": TALK, "max_tokens": 16, "seed": 1, "temperature": 0}
    whole = await client.chat.completions.create(**fields)
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            **fields, stream=True, stream_options={"include_usage": True}
        )
    ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 16
    assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0


async def test_models_and_completions(client):
    assert [model.id async for model in client.models.list()] == [MODEL]
    answer = await client.completions.create(model=MODEL, prompt=list(range(50)), max_tokens=3)
    assert answer.usage.prompt_tokens == 50


async def test_responses_whole_streamed_stored_and_continued(client):
    first = await client.responses.create(model=MODEL, input="Remember me", max_output_tokens=8)
    assert first.output_text
    assert (await client.responses.retrieve(first.id)).id == first.id
    for _ in range(4):  # each continues what one of the two engines stores
        again = await client.responses.create(
            model=MODEL, input="Go on", previous_response_id=first.id, max_output_tokens=8
        )
        assert again.previous_response_id == first.id
    events = [
        event
        async for event in await client.responses.create(model=MODEL, input="Stream", max_output_tokens=8, stream=True)
    ]
    assert events[-1].type in ("response.completed", "response.incomplete")


async def test_the_prompt_of_a_response_is_matched(lab, client):
    text = "The same long beginning of many requests. " * 30
    for _ in range(2):
        await client.responses.create(model=MODEL, input=text, max_output_tokens=4)

    async def matched():
        raw = await client.responses.with_raw_response.create(model=MODEL, input=text, max_output_tokens=4)
        return int(raw.headers["x-kvsync-matched-tokens"]) > 0

    await until("the index knows the prompt", matched, deadline_s=30)


async def test_errors_are_those_of_the_engine_or_of_the_router(client):
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="nobody", messages=TALK)
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=TALK, max_tokens=-1)
    with pytest.raises(openai.BadRequestError):
        await client.completions.create(model=MODEL, prompt="word " * 100_000, max_tokens=1)


async def test_a_stream_that_is_cancelled_ends_at_the_engine(lab, client):
    _, engines = lab
    stream = await client.chat.completions.create(
        model=MODEL, messages=TALK, max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    await stream.close()
    for engine in engines:
        wait_until("nothing runs", lambda one=engine: one.metric("vllm:num_requests_running") == 0)
