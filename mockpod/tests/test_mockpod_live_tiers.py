"""A host tier behind a live pod: evicted blocks are loaded again, and the events agree with the ground truth."""

import asyncio

import pytest
from mockpod_helpers import Mirror, replay, start_pod, truth

from kvsync_events import AllBlocksCleared, BlockStored, decode_batch
from kvsync_indexer.core import Context, make_core
from kvsync_mockpod.pod import Environment
from kvsync_testkit.waiting import until

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


DEV = Environment(dev_mode=True)


async def restart(pod):
    """Restart with the loss of all blocks."""
    plan = {"faults": [{"kind": "restart", "blocks": "lost"}]}
    async with pod.client.put(pod.url + "/debug/faults", json=plan) as answer:
        assert answer.status == 200, await answer.text()


async def announced(pod):
    """Every event since the start of the process."""
    items = await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)
    return [event for item in items for event in decode_batch(item.payload).events]


async def test_a_restart_loses_all_blocks_while_a_copy_is_under_way_and_the_next_clear_is_announced():
    tiers = {"mock_host_blocks": 200, "mock_host_bandwidth": 1.0, "mock_block_bytes": 2**20}
    async with start_pod(DEV, **SMALL, **tiers) as pod:
        for number in range(4):
            await cached(pod, number)
        engine = pod.pod.ranks[0].engine
        waiting = asyncio.create_task(cached(pod, 4))
        await until("a copy that takes days is under way", lambda: engine.next_deadline() is not None)
        await restart(pod)
        assert engine.next_deadline() is None
        assert await waiting == 0, "nothing holds the device's slots any more"
        assert len(await truth(pod)) == 8, "only the waiting request's blocks are there"
        assert await cached(pod, 3) == 0
        await pod.quiet()
        assert all(isinstance(event, BlockStored) for event in await announced(pod)), "a new process clears nothing"
        async with pod.client.post(pod.url + "/reset_prefix_cache") as answer:
            assert (await answer.json())["success"]
        assert await cached(pod, 3) == 0
        await pod.quiet()
        assert sum(isinstance(event, AllBlocksCleared) for event in await announced(pod)) == 1


async def test_a_step_that_a_restart_interrupts_announces_no_block():
    async with start_pod(mock_latency='{"prefill_us": 200000}', **SMALL) as pod:
        asking = asyncio.create_task(cached(pod, 0))
        await until("the step runs", lambda: bool(pod.pod.ranks[0].engine.log.next))
        await restart(pod)
        assert await asking == 0
        await pod.quiet()
        mirror = Mirror().apply_payloads(
            [item.payload for item in await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0)]
        )
        assert mirror.copies == await truth(pod)


async def test_instant_transfers_are_instant_with_a_disk_too():
    tiers = {
        "mock_host_blocks": 16,
        "mock_disk_blocks": 64,
        "mock_disk_bandwidth": 1.0,
        "mock_tier_transfers": "instant",
    }
    async with start_pod(**SMALL, **tiers) as pod:
        for number in range(8):
            await cached(pod, number)
            assert pod.pod.ranks[0].engine.next_deadline() is None
        assert {block.medium for block in pod.pod.ranks[0].engine.blocks()} == {"GPU", "CPU", "STORAGE"}
        assert await cached(pod, 0) == 112
        assert pod.pod.ranks[0].engine.statistics().tiers.disk_hits > 0


@pytest.mark.parametrize("keys", [{"cache_salt": "tenant"}, {"model": "adapter"}], ids=["salt", "lora"])
async def test_an_index_never_gives_offloaded_blocks_of_one_tenant_to_another(keys):
    """End to end: the pod's own payloads, as an index receives them, after the device has lost the blocks."""
    tiers = {"mock_host_blocks": 200, "mock_tier_transfers": "instant", "lora_modules": ["adapter=/adapters/one"]}
    async with start_pod(**SMALL, **tiers) as pod:
        await pod.post("/v1/completions", {"prompt": prompt(0), "max_tokens": 1, **keys})
        for number in range(1, 8):
            await cached(pod, number)
        await pod.quiet()
        rows = [row for row in await pod.lines("/debug/kv/blocks") if row["token_ids"] == prompt(0)[:16]]
        assert [(row["medium"], row["lora_name"]) for row in rows] == [("CPU", keys.get("model"))]
        assert rows[0]["extra_keys"] == list(keys.values())
        core = make_core("python")
        core.add_publisher("pod", "kvsync/mock")
        for item in await replay(pod.pod.ranks[0].publisher.replay_endpoint, 0):
            core.apply("pod", item.payload)
        own = Context("kvsync/mock", lora=keys.get("model"), cache_salt=keys.get("cache_salt"))
        assert [match.blocks for match in core.match(own, prompt(0))] == [8]
        for other in (Context("kvsync/mock"), Context("kvsync/mock", cache_salt="rival")):
            assert not core.match(other, prompt(0))
        assert await cached(pod, 0) == 0
        _, answer = await pod.post("/v1/completions", {"prompt": prompt(0), "max_tokens": 1, **keys})
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 112
