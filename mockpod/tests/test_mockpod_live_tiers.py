"""A host tier behind a live pod: evicted blocks are loaded again, and the events agree with the ground truth."""

import pytest
from mockpod_helpers import replay, start_pod

from kvsync_events import BlockStored, decode_batch

SMALL = {"num_gpu_blocks_override": 33, "max_model_len": 256, "enable_prompt_tokens_details": True}


def prompt(number):
    return [80_000 + number * 1000 + position for position in range(128)]


async def cached(pod, number):
    _, answer = await pod.post("/v1/completions", {"prompt": prompt(number), "max_tokens": 1})
    return answer["usage"]["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("transfers", ["timed", "instant"])
async def test_evicted_blocks_come_back_from_the_host(transfers):
    tiers = {"mock_host_blocks": 200, "mock_tier_transfers": transfers, "mock_block_bytes": 2**20}
    async with start_pod(**SMALL, **tiers) as pod:
        for number in range(8):
            assert await cached(pod, number) == 0
        digest = await pod.quiet()
        media = {row["medium"]: row["count"] for row in digest["digests"]}
        assert media["CPU"] >= 24
        assert await cached(pod, 0) == 112, "all but the last block, from the host"
        text = await pod.text("/metrics")
        assert (
            'prompt_tokens_by_source_total{model_name="kvsync/mock",engine="0",source="external_kv_transfer"} 112'
            in text
        )
        await pod.quiet()
        resident: dict[str, dict[int, int]] = {}
        for item in await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0):
            for event in decode_batch(item.payload).events:
                table = resident.setdefault(event.medium or "GPU", {})
                step = 1 if isinstance(event, BlockStored) else -1
                for block in event.block_hashes:
                    table[block] = table.get(block, 0) + step
        said = {(medium, block) for medium, table in resident.items() for block, count in table.items() if count > 0}
        truth = {(row["medium"], row["hash"]) for row in await pod.lines("/debug/kv/blocks")}
        assert said == truth


async def test_hash_only_events_carry_no_tokens():
    tiers = {"mock_host_blocks": 200, "mock_tier_transfers": "instant", "mock_tier_events": "hash_only"}
    async with start_pod(**SMALL, **tiers) as pod:
        for number in range(6):
            await cached(pod, number)
        await pod.quiet()
        events = [
            event
            for item in await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
            for event in decode_batch(item.payload).events
            if isinstance(event, BlockStored) and event.medium == "CPU"
        ]
        assert events
        assert all(event.block_size == 0 and not event.token_ids for event in events)
