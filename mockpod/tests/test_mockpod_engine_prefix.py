"""Prefix caching: exact hits (test 19), the parts of a block's identity, reports, resets and the ground truth."""

from collections import Counter

import pytest

from kvsync_events import AllBlocksCleared, BlockHasher, BlockRemoved, BlockStored
from kvsync_mockpod.engine import Engine, LoraRef, MMFeature, Request
from kvsync_testkit.scheduler import (
    SchedulerBuilder,
    ScriptedExecutor,
    SteppedScheduler,
    engine_config,
    make_request,
    prompt_tokens,
    run_requests,
)


@pytest.mark.parametrize("block", [1, 4, 16])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 100])
def test_19_hit_tokens_of_a_second_identical_call(n, block):
    driver = SchedulerBuilder(block_size=block, num_gpu_blocks=2000, max_num_batched_tokens=512).build()
    for rid in ("one", "two"):
        driver.add(make_request(rid, n=n, max_tokens=1, stream=3))
        driver.until_idle()
    assert driver.outcomes["one"].cached_tokens == 0
    assert driver.outcomes["two"].cached_tokens == (n - 1) // block * block


def test_19_a_prompt_under_one_block_never_hits():
    record = run_requests([make_request(f"r{i}", n=15, max_tokens=1, stream=3) for i in range(4)])
    assert [o.cached_tokens for o in record.outcomes.values()] == [0, 0, 0, 0]
    assert not record.events


def test_hits_are_contiguous_from_the_start():
    driver = SchedulerBuilder(max_num_batched_tokens=512).build()
    head, middle, tail = prompt_tokens(1, 32), prompt_tokens(2, 32), prompt_tokens(3, 32)
    driver.add(Request("a", head + middle + tail, 1))
    driver.until_idle()
    driver.add(
        Request("b", prompt_tokens(9, 32) + middle + tail, 1), Request("c", head + prompt_tokens(8, 32) + tail, 1)
    )
    driver.until_idle()
    assert driver.outcomes["b"].cached_tokens == 0
    assert driver.outcomes["c"].cached_tokens == 32


LORA = LoraRef("ad1", 7, "adapters/ad1")
IDENTITIES = {
    "plain": {},
    "salt": {"cache_salt": "tenant"},
    "other salt": {"cache_salt": "rival"},
    "lora": {"lora": LORA},
    "other lora": {"lora": LoraRef("ad2", 8, "adapters/ad2")},
    "lora elsewhere": {"lora": LoraRef("ad1", 9, "moved/ad1")},
    "image": {"mm_features": (MMFeature("img", 4, 20),)},
    "other image": {"mm_features": (MMFeature("cat", 4, 20),)},
    "image moved": {"mm_features": (MMFeature("img", 6, 20),)},
}


def test_everything_in_a_blocks_identity_keeps_prompts_apart():
    driver = SchedulerBuilder(max_loras=4, max_num_batched_tokens=512).build()
    hits = {}
    for round_ in (1, 2):
        for name, values in IDENTITIES.items():
            rid = f"{name} {round_}"
            driver.add(make_request(rid, n=50, max_tokens=1, stream=4, **values))
            driver.until_idle()
            hits[rid] = driver.outcomes[rid].cached_tokens
    assert {hits[f"{name} 1"] for name in IDENTITIES} == {0}
    assert {hits[f"{name} 2"] for name in IDENTITIES} == {48}
    hashes = [h for e in driver.events if isinstance(e, BlockStored) for h in e.block_hashes]
    assert len(set(hashes)) == len(hashes) == 3 * len(IDENTITIES)


def test_an_image_changes_only_the_blocks_from_its_own_on():
    driver = SchedulerBuilder(max_num_batched_tokens=512).build()
    driver.add(make_request("a", n=80, max_tokens=1, stream=4))
    driver.until_idle()
    driver.add(make_request("b", n=80, max_tokens=1, stream=4, mm_features=(MMFeature("img", 40, 10),)))
    driver.until_idle()
    assert driver.outcomes["b"].cached_tokens == 32
    event = next(e for e in driver.events if isinstance(e, BlockStored) and e.parent_block_hash is not None)
    assert event.extra_keys == [(("img", 8),), (("img", -8),), None]


def test_events_carry_lora_and_salt_as_vllm_does():
    driver = run_requests([make_request("a", n=40, max_tokens=1, lora=LORA, cache_salt="s")], max_loras=1)
    event = driver.events[0]
    assert (event.lora_id, event.lora_name, event.medium, event.group_idx) == (7, "ad1", "GPU", 0)
    assert event.extra_keys == [("ad1", "s"), ("ad1",)]


def test_hashes_are_vllms_and_chain_to_the_announced_parent():
    driver = run_requests([make_request("a", n=70, max_tokens=40, stream=6)], max_num_batched_tokens=32)
    hasher = BlockHasher("sha256_cbor", "0")
    parent = None
    for event in driver.events:
        assert event.parent_block_hash == parent
        for i, h in enumerate(event.block_hashes):
            parent = hasher.hash_block(parent, event.token_ids[16 * i : 16 * i + 16], None)
            assert h == parent


def test_a_full_report_announces_the_hit_again_and_adds_no_copy():
    driver = SchedulerBuilder(max_num_batched_tokens=512).build()
    engine = driver.engine
    driver.add(make_request("a", n=50, max_tokens=1, stream=2))
    driver.until_idle()
    first = list(driver.events)
    before = [(b.hash, b.copies) for b in engine.blocks()]
    driver.add(make_request("b", n=50, max_tokens=1, stream=2, report_full=True))
    driver.until_idle()
    again = driver.events[len(first) :]
    assert [e.block_hashes for e in again] == [[h for e in first for h in e.block_hashes]]
    assert again[0].parent_block_hash is None
    assert [(b.hash, b.copies) for b in engine.blocks()] == before
    assert engine.log.next == 3


def test_reset_is_refused_while_held_and_announced_with_the_next_step():
    driver = SchedulerBuilder().build()
    engine = driver.engine
    driver.add(make_request("a", n=50, max_tokens=20))
    driver.step()
    assert not engine.reset_prefix_cache()
    driver.until_idle()
    assert engine.reset_prefix_cache()
    assert not engine.has_work(), "an idle engine announces the reset with its next request only"
    assert list(engine.blocks()) == []
    driver.add(make_request("b", n=50, max_tokens=1))
    step = driver.step()
    assert isinstance(step.events[0], AllBlocksCleared)


def test_reset_with_running_requests_recomputes_them():
    plain = run_requests([make_request(f"r{i}", n=40, max_tokens=15) for i in range(4)])
    driver = SchedulerBuilder(max_num_batched_tokens=256).build()
    engine = driver.engine
    driver.add(*(make_request(f"r{i}", n=40, max_tokens=15) for i in range(4)))
    for _ in range(5):
        driver.step()
    assert engine.reset_prefix_cache(reset_running_requests=True)
    step = driver.step()
    assert step.preempted == ["r3", "r2", "r1", "r0"]
    assert list(step.resumed) == ["r0", "r1", "r2", "r3"]
    driver.until_idle()
    assert {r: o.tokens for r, o in driver.outcomes.items()} == {r: o.tokens for r, o in plain.outcomes.items()}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_replayed_events_and_log_equal_the_block_table_after_every_step(asynchronous):
    driver = SchedulerBuilder(num_gpu_blocks=30, max_model_len=256, async_scheduling=asynchronous).build()
    engine = driver.engine
    driver.add(*(make_request(f"r{i}", n=16 * (1 + i % 5), max_tokens=20, stream=i % 4) for i in range(40)))
    live, logged, read = Counter(), Counter(), 0
    while engine.has_work():
        for event in driver.step().events:
            if isinstance(event, BlockStored):
                live.update(event.block_hashes)
            elif isinstance(event, BlockRemoved):
                live.subtract(event.block_hashes)
        for entry in engine.log.since(read):
            assert entry.n == read
            read += 1
            logged[entry.hash] += 1 if entry.kind == "stored" else -1
        table = {b.hash: b.copies for b in engine.blocks()}
        assert {h: n for h, n in logged.items() if n} == table
        if not asynchronous:
            assert {h: n for h, n in live.items() if n} == table
    assert {h: n for h, n in live.items() if n} == table
    assert max(table.values()) >= 1
    for block in engine.blocks():
        assert len(block.token_ids) == 16
        assert BlockHasher("sha256_cbor", "0").hash_block(block.parent, block.token_ids, None) == block.hash


def test_the_log_keeps_its_newest_entries_and_the_number_of_the_first():
    driver = SchedulerBuilder(log_entries=10).build()
    engine = driver.engine
    for i in range(6):
        driver.add(make_request(f"r{i}", n=64, max_tokens=1))
        driver.until_idle()
    assert engine.log.next == 24
    assert 10 <= len(engine.log) < 10 + 4
    entries = list(engine.log.since(0))
    assert entries[0].n == engine.log.first
    assert [e.n for e in entries] == list(range(engine.log.first, 24))
    assert [e.n for e in engine.log.since(22)] == [22, 23]


def test_never_computed_blocks_can_be_taken_back():
    """vllm-project/vllm#43569: a request scheduled in the step that preempts it has announced blocks."""

    def play(mode):
        values = {"num_gpu_blocks": 16, "max_num_batched_tokens": 64, "max_model_len": 240, "max_num_seqs": 4}
        engine = Engine(
            engine_config(policy="priority", long_prefill_token_threshold=48, uncomputed_hits=mode, **values),
            ScriptedExecutor(),
        )
        driver = SteppedScheduler(engine)
        driver.add(make_request("A", n=224, max_tokens=4, stream=1, priority=5))
        driver.step()
        driver.step()
        driver.add(make_request("B", n=16, max_tokens=6, stream=2, priority=0, arrival_s=2.0))
        driver.until_idle()
        return driver

    def uncomputed_hits(driver):
        step = next(s for s in driver.steps if "A" in s.resumed)
        computed = sum(n for s in driver.steps[: step.step] for rid, n in s.scheduled if rid == "A")
        return step.resumed["A"] - computed

    as_vllm, fixed = play("vllm"), play("fixed")
    assert uncomputed_hits(as_vllm) > 0
    assert uncomputed_hits(fixed) <= 0
    assert as_vllm.outcomes["A"].tokens == fixed.outcomes["A"].tokens
