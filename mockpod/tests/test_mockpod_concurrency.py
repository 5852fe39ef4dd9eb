"""Integration test 16: a thousand concurrent requests over real HTTP against a bounded queue.

The longest wait is bounded because an accepted request waits behind at most `WAITING` others. The time that this takes
is a matter of benchmarks, not of this test.
"""

import asyncio
import resource

import aiohttp
import pytest
from mockpod_process import pod_process
from prometheus_client.parser import text_string_to_metric_families

REQUESTS = 1000
WAITING = 200
SLOTS = 64


@pytest.fixture
def descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192) if hard > 0 else 8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url
        self.refused = 0

    async def one(self, number: int, start: asyncio.Event) -> int:
        """Send one request, again while it is refused; returns the number of tokens received."""
        tokens = 1 + number % 16
        body = {
            "prompt": [90_000 + number * 50 + position for position in range(40)],
            "max_tokens": tokens,
            "stream": number % 2 == 0,
            "stream_options": {"include_usage": True} if number % 2 == 0 else None,
        }
        await start.wait()
        while True:
            async with self.session.post(self.url, json=body) as answer:
                text = await answer.text()
                if answer.status == 429:
                    assert answer.headers["retry-after"] == "1"
                    self.refused += 1
                else:
                    assert answer.status == 200, text
                    assert ("[DONE]" in text) == body["stream"]
                    assert f'"completion_tokens":{tokens}' in text
                    return tokens
            await asyncio.sleep(0.05)  # wait before the next attempt, as the 429 asks for


async def test_a_thousand_at_once_all_end_and_the_queue_stays_bounded(descriptors):
    flags = ["--max-num-seqs", str(SLOTS), "--mock-max-waiting", str(WAITING), "--num-gpu-blocks-override", "400"]
    with pod_process(*flags, "--max-model-len", "512") as pod:
        base = f"http://127.0.0.1:{pod.port}"
        most_waiting = 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def metrics() -> dict:
                async with session.get(base + "/metrics") as answer:
                    families = text_string_to_metric_families(await answer.text())
                return {sample.name: sample.value for family in families for sample in family.samples}

            async def watch() -> None:
                nonlocal most_waiting
                while True:
                    most_waiting = max(most_waiting, (await metrics())["vllm:num_requests_waiting"])
                    await asyncio.sleep(0.05)

            client, start = Client(session, base + "/v1/completions"), asyncio.Event()
            tasks = [asyncio.create_task(client.one(number, start)) for number in range(REQUESTS)]
            watcher = asyncio.create_task(watch())
            start.set()
            outcomes = await asyncio.gather(*tasks)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
            after = await metrics()
        assert len(outcomes) == REQUESTS
        assert client.refused > 0, "a thousand requests at once exceed the queue"
        assert most_waiting <= WAITING
        assert after["vllm:num_requests_running"] == after["vllm:num_requests_waiting"] == 0
        assert after["vllm:generation_tokens_total"] == sum(outcomes)
        assert after["vllm:e2e_request_latency_seconds_count"] == REQUESTS
        assert after["vllm:kv_cache_usage_perc"] == 0
