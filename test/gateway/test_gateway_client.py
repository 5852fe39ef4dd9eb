"""OpenAI's own client through a real Envoy, with every configuration of `examples/gateway`."""

import asyncio
import contextlib
import socket

import openai
import pytest

from kvsync_testkit.processes import MODEL, Router
from kvsync_testkit.waiting import wait_until

pytestmark = pytest.mark.timeout(300)
"""A test may start and stop six processes."""


def prompt_of(test, tokens=64):
    """A prompt that no other test uses."""
    first = sum(map(ord, test)) % 30_000
    return [first + at for at in range(tokens)]


def test_a_second_request_finds_the_first_ones_cache_and_confirms_the_prediction(plant, client):
    reported = plant.picker.metric("kvsync_router_predictions_total", outcome="reported")
    prompt = prompt_of("cache", 330)
    first = client.completions.with_raw_response.create(model=MODEL, prompt=prompt, max_tokens=2)
    home = first.headers["x-kvsync-endpoint"]
    wait_until("the index has the prompt", lambda: plant.index.match(prompt).get(home, 0) >= 20)
    second = client.completions.with_raw_response.create(model=MODEL, prompt=prompt, max_tokens=2)
    assert second.headers["x-kvsync-endpoint"] == home
    cached = second.parse().usage.prompt_tokens_details.cached_tokens
    assert cached == int(second.headers["x-kvsync-matched-tokens"]) == 320
    wait_until(
        "both predictions are reported",
        lambda: plant.picker.metric("kvsync_router_predictions_total", outcome="reported") == reported + 2,
    )


def test_a_stream_arrives_event_by_event(plant, client):
    began = False
    words = []
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "stream"}],
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    for event in stream:
        if not began:
            began = True
            assert plant.running() == 1, "the first event arrived only after the engine had finished"
        words += [choice.delta.content for choice in event.choices if choice.delta.content]
    assert event.usage.completion_tokens == 40
    assert len(words) > 10
    plant.settle()


def test_an_answer_is_the_same_as_through_the_proxy(plant, client):
    router = Router(plant.index)
    try:
        router.live()
        with openai.OpenAI(base_url=f"{router.url}/v1", api_key="any", max_retries=0) as other:
            fields = {"model": MODEL, "prompt": prompt_of("same"), "max_tokens": 8, "seed": 5}
            ours, theirs = client.completions.create(**fields), other.completions.create(**fields)
            assert (ours.choices, ours.usage.prompt_tokens) == (theirs.choices, theirs.usage.prompt_tokens)
            assert {one.id for one in client.models.list()} == {one.id for one in other.models.list()}
            for bad in ({"model": "unknown"}, {"max_tokens": -1}, {"prompt": prompt_of("long", 300_000)}):
                errors = []
                for each in (client, other):
                    with pytest.raises(openai.APIStatusError) as caught:
                        each.completions.create(**{**fields, **bad})
                    errors.append((type(caught.value), caught.value.status_code, caught.value.body))
                assert errors[0] == errors[1]
    finally:
        router.stop()


def test_a_client_that_leaves_cancels_its_request(plant, client):
    stream = client.completions.create(
        model=MODEL, prompt=prompt_of("leave"), max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    assert plant.running() == 1
    stream.close()
    wait_until("the engine stops", lambda: plant.running() == 0)
    plant.settle()


def test_a_destination_that_the_client_names_is_not_believed(plant, client):
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0)
        address = f"127.0.0.1:{trap.getsockname()[1]}"
        headers = {"x-gateway-destination-endpoint": address}
        raw = client.completions.with_raw_response.create(
            model=MODEL, prompt=prompt_of("trap"), max_tokens=1, extra_headers=headers
        )
        assert raw.headers["x-kvsync-endpoint"].startswith("engine-")
        assert client.models.with_raw_response.list(extra_headers=headers).http_response.status_code == 200
        with pytest.raises(BlockingIOError):
            trap.accept()


@pytest.mark.parametrize("size", [500_000, 20_000_000])
def test_large_bodies_pass_unchanged(client, size):
    answer = client.completions.create(
        model=MODEL, prompt=prompt_of("large"), max_tokens=1, extra_body={"user": "x" * size}
    )
    assert answer.usage.prompt_tokens == 64


def test_a_prompt_of_85000_tokens_is_placed_by_its_cache(plant, client):
    prompt = prompt_of("prompt", 85_000)
    homes = set()
    for _ in range(2):
        raw = client.completions.with_raw_response.create(model=MODEL, prompt=prompt, max_tokens=1)
        homes.add(raw.headers["x-kvsync-endpoint"])
        wait_until("the index has the prompt", lambda: max(plant.index.match(prompt).values(), default=0) >= 5300)
    assert len(homes) == 1
    assert int(raw.headers["x-kvsync-matched-tokens"]) > 84_000


async def test_two_hundred_concurrent_streams(plant):
    async with openai.AsyncOpenAI(base_url=f"{plant.envoy.base_url}/v1", api_key="any", max_retries=0) as client:

        async def one(number):
            stream = await client.completions.create(
                model=MODEL,
                prompt=[number] * 64,
                max_tokens=10,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
            return [event.usage async for event in stream][-1].completion_tokens

        assert await asyncio.gather(*(one(number) for number in range(200))) == [10] * 200
    await asyncio.to_thread(plant.settle)
    names = [f"engine-{number}" for number in range(3)]
    served = {name: plant.engine(name).metric("vllm:request_success_total", finished_reason="length") for name in names}
    assert min(served.values()) > 20, f"load was not spread: {served}"


def test_an_unreadable_body_reaches_the_engine_which_says_what_is_wrong(plant):
    depth = 10_000
    for body in (b"not json", b'{"messages":' + b"[" * depth + b"]" * depth + b"}", b"\xff" * 100):
        with contextlib.closing(socket.create_connection(("127.0.0.1", plant.envoy.gateway_port), 30)) as connection:
            head = (
                f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
            )
            connection.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        assert answer.split(b"\r\n")[0] in {b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 422 Unprocessable Entity"}
        assert b"x-kvsync-endpoint: engine-" in answer


def test_a_body_that_never_ends_as_promised_harms_nobody(plant, client):
    with contextlib.closing(socket.create_connection(("127.0.0.1", plant.envoy.gateway_port), 30)) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        assert client.completions.create(model=MODEL, prompt=prompt_of("lie"), max_tokens=1).usage.prompt_tokens == 64
    plant.settle()
