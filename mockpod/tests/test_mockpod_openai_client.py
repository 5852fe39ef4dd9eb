"""The official `openai` client, and the APIs of Anthropic and of OpenAI responses, used against a pod."""

import json

import openai
import pytest
from mockpod_helpers import start_pod


@pytest.fixture
async def pod():
    async with start_pod(api_key=["key"], enable_prompt_tokens_details=True) as running:
        yield running


@pytest.fixture
async def client(pod):
    async with openai.AsyncOpenAI(base_url=pod.url + "/v1", api_key="key", max_retries=0) as made:
        yield made


MESSAGES = [{"role": "user", "content": "Say something long, please. " * 5}]


async def test_the_official_client_completes_and_streams(client):
    whole = await client.completions.create(model="kvsync/mock", prompt="Once upon a time", max_tokens=12)
    assert whole.usage.completion_tokens == 12
    chunks = [
        chunk
        async for chunk in await client.completions.create(
            model="kvsync/mock",
            prompt="Once upon a time",
            max_tokens=12,
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == 12


async def test_the_official_client_chats_and_streams(client):
    whole = await client.chat.completions.create(model="kvsync/mock", messages=MESSAGES, max_tokens=12, n=2)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].message.role == "assistant"
    texts = {0: "", 1: ""}
    async for chunk in await client.chat.completions.create(
        model="kvsync/mock", messages=MESSAGES, max_tokens=12, n=2, stream=True
    ):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    again = await client.chat.completions.create(model="kvsync/mock", messages=MESSAGES, max_tokens=1)
    assert again.usage.prompt_tokens_details.cached_tokens > 0


async def test_the_official_client_lists_models_and_gets_typed_errors(pod, client):
    assert [model.id async for model in client.models.list()] == ["kvsync/mock"]
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        await client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model="kvsync/mock", prompt="x", max_tokens=-1)
    assert refused.value.param == "max_tokens"
    async with openai.AsyncOpenAI(base_url=pod.url + "/v1", api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()


async def test_the_official_client_s_responses_continue_each_other(client):
    first = await client.responses.create(model="kvsync/mock", input="Hello there", max_output_tokens=20)
    assert first.status == "incomplete"
    assert len(first.output_text) > 10
    kept = await client.responses.retrieve(first.id)
    assert kept.output_text == first.output_text
    second = await client.responses.create(
        model="kvsync/mock", input="Go on", previous_response_id=first.id, max_output_tokens=4
    )
    assert second.usage.input_tokens > first.usage.input_tokens + 20
    assert second.usage.input_tokens_details.cached_tokens >= 16
    events = [
        event
        async for event in await client.responses.create(
            model="kvsync/mock", input="Hello there", max_output_tokens=20, stream=True
        )
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == first.output_text
    with pytest.raises(openai.NotFoundError):
        await client.responses.create(model="kvsync/mock", input="x", previous_response_id="resp-none")


async def test_messages_have_anthropic_s_shape(pod):
    auth = {"Authorization": "Bearer key"}
    body = {"model": "kvsync/mock", "max_tokens": 20, "messages": MESSAGES, "system": "Be brief."}
    status, whole = await pod.post("/v1/messages", body, **auth)
    assert status == 200
    assert (whole["type"], whole["role"], whole["stop_reason"]) == ("message", "assistant", "max_tokens")
    assert whole["usage"]["output_tokens"] == 20
    asked = {key: body[key] for key in ("model", "messages", "system")}
    _, counted = await pod.post("/v1/messages/count_tokens", asked, **auth)
    assert counted == {"input_tokens": whole["usage"]["input_tokens"]}
    async with pod.client.post(pod.url + "/v1/messages", json={**body, "stream": True}, headers=auth) as answer:
        lines = (await answer.text()).splitlines()
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert [line[7:] for line in lines if line.startswith("event: ")] == [event["type"] for event in events]
    text = "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta")
    assert text == whole["content"][0]["text"]
    assert events[-2]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    word = text.split()[2]
    _, cut = await pod.post("/v1/messages", {**body, "stop_sequences": [word]}, **auth)
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", word)
    status, error = await pod.post("/v1/messages", {**body, "model": "none"}, **auth)
    assert (status, error["type"], error["error"]["type"]) == (404, "error", "not_found_error")
