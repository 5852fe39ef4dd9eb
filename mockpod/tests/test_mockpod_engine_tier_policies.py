"""Options of the lower tiers: lineage-aware eviction, duplicates, and offloading by frequency of use."""

import random
from collections import Counter
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import BlockStored
from kvsync_mockpod.engine import EngineConfigError, TierConfig
from kvsync_mockpod.engine.tiers import (
    FrequencyTracker,
    LineageStore,
    OffloadEngine,
    SourceBlock,
    StoredBlock,
    TierStore,
    TrackerSize,
)
from kvsync_testkit.scheduler import SchedulerBuilder, make_request

MB, GB = 10**6, 10**9
TIMED = {"block_bytes": MB, "device_to_host_bandwidth": GB, "host_to_device_bandwidth": GB, "disk_bandwidth": GB}


class Sink:
    """What each tier holds according to the reports, with checks at every removal."""

    def __init__(self):
        self.held = {"CPU": Counter(), "STORAGE": Counter()}
        self.parents = {}
        self.orphaned = []

    def tier_stored(self, medium, blocks):
        for block in blocks:
            self.parents[block.hash] = block.parent
            self.held[medium][block.hash] += 1

    def tier_removed(self, medium, block):
        held = self.held[medium]
        held[block.hash] -= 1
        assert held[block.hash] >= 0
        if not held[block.hash]:
            del held[block.hash]
            self.orphaned += [(medium, h) for h in held if self.parents[h] == block.hash]


def chain(name, length):
    """A chain of blocks in eviction order, leaf first."""
    hashes = [f"{name}{i}".encode() for i in range(length)]
    return [SourceBlock(h, hashes[i - 1] if i else None) for i, h in enumerate(hashes)][::-1]


def random_life(seed, eviction, **values):
    rng = random.Random(seed)
    sink = Sink()
    engine = OffloadEngine(
        TierConfig.build(
            host_blocks=rng.randint(4, 14),
            disk_blocks=rng.choice([0, 8]),
            batch_blocks=rng.randint(1, 4),
            concurrent_batches=rng.randint(1, 3),
            eviction=eviction,
            **(TIMED | values),
        ),
        sink,
    )
    loads, now = [], 0.0
    for _ in range(120):
        now += rng.choice([0.0, 0.0005, 0.002, 0.01])
        name, length = rng.choice("abcdef"), rng.randint(1, 6)
        if rng.random() < 0.6:
            engine.offer(chain(name, length)[: rng.randint(1, length)], now)
        elif rng.random() < 0.6:
            prepared = engine.prepare_onboard_prefix([block.hash for block in chain(name, length)[::-1]])
            if prepared is not None:
                loads.append(engine.start_onboard_prefix(prepared, now))
        elif loads:
            engine.release(loads.pop(rng.randrange(len(loads))))
        engine.tick(now)
    for load in loads:
        engine.release(load)
    while (deadline := engine.earliest_pending_deadline()) is not None:
        engine.tick(deadline)
    return engine, sink


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 2**32), duplicates=st.sampled_from(["refuse", "allow"]))
def test_no_child_outlives_its_parent_in_a_tier(seed, duplicates):
    engine, sink = random_life(seed, "lineage", duplicates=duplicates)
    assert sink.orphaned == []
    for medium in ("CPU", "STORAGE"):
        assert sink.held[medium] == Counter({b.hash: b.copies for m, b in engine.blocks() if m == medium})
    assert engine.held_slots == 0


def test_plain_lru_lets_children_outlive_their_parents():
    """The property above can fail: the same lives break it without lineage."""
    assert any(random_life(seed, "lru")[1].orphaned for seed in range(20))


def fill(store, *blocks):
    for h, parent in blocks:
        store.reserve(1)
        store.insert(StoredBlock(h, parent, ()))


def test_lineage_evicts_the_least_recently_used_leaf_and_then_its_parent():
    store = LineageStore(8)
    fill(store, (b"a0", None), (b"a1", b"a0"), (b"b0", None), (b"a2", b"a1"))
    assert [store.evict().hash for _ in range(4)] == [b"b0", b"a2", b"a1", b"a0"]
    assert store.evict() is None
    plain = TierStore(8)
    fill(plain, (b"a0", None), (b"a1", b"a0"), (b"b0", None), (b"a2", b"a1"))
    assert [plain.evict().hash for _ in range(4)] == [b"a0", b"a1", b"b0", b"a2"]


def test_a_parent_of_a_pinned_block_is_not_evicted():
    store = LineageStore(8)
    fill(store, (b"a0", None), (b"a1", b"a0"))
    store.pin(store.get(b"a1"))
    assert store.evict() is None
    store.unpin(store.get(b"a1"))
    assert store.evict().hash == b"a1"


def test_a_block_that_gets_a_child_is_a_leaf_no_more():
    store = LineageStore(8)
    fill(store, (b"a0", None), (b"b0", None), (b"a1", b"a0"))
    assert store.evict().hash == b"b0"
    store.clear()
    fill(store, (b"c0", None))
    assert store.evict().hash == b"c0", "nothing is left of what was cleared"


# --- duplicates


@pytest.mark.parametrize(("policy", "copies"), [("refuse", 1), ("allow", 2)])
def test_a_block_offered_again_is_refused_or_becomes_a_copy(policy, copies):
    sink = Sink()
    engine = OffloadEngine(TierConfig.build(host_blocks=4, duplicates=policy, **TIMED), sink)
    offer = [SourceBlock(b"a")]
    assert engine.offer(offer, 0.0)
    assert engine.offer(offer, 0.0) is (copies == 2), "under way"
    engine.tick(1.0)
    assert [(b.hash, b.copies) for _, b in engine.blocks()] == [(b"a", copies)]
    assert sink.held["CPU"] == {b"a": copies}
    engine.offer([SourceBlock(bytes([i])) for i in range(3)], 1.0)
    engine.tick(2.0)
    assert sink.held["CPU"][b"a"] == 1, "the second copy went first"
    assert engine.report().duplicates == 1
    assert engine.report().dropped == 0, "a copy of it stays"
    engine.offer([SourceBlock(b"x")], 2.0)
    engine.tick(3.0)
    assert sink.held["CPU"][b"a"] == 0
    assert len(engine.blocks()) == 4


def test_copies_and_slots_are_conserved_when_duplicates_are_allowed():
    for seed in range(20):
        engine, sink = random_life(seed, "lru", duplicates="allow")
        for medium in ("CPU", "STORAGE"):
            assert sink.held[medium] == Counter({b.hash: b.copies for m, b in engine.blocks() if m == medium})
        assert sum(sink.held["CPU"].values()) <= engine.config.host_blocks


# --- frequency


@pytest.mark.parametrize("size", TrackerSize)
def test_frequencies_keep_their_stated_error(size):
    """Estimates are never below the count, and above it by e * N / size in at most 1.8 % of all cases."""
    rng = random.Random(3)
    tracker, counts = FrequencyTracker(size), Counter()
    for _ in range(min(8 * size.value, 30_000)):
        number = rng.randrange(10**9) if rng.random() < 0.5 else rng.randrange(500)
        block = sha256(b"%d" % number).digest()
        tracker.touch(block)
        counts[block] += 1
    bound = 2.72 * counts.total() / size.value
    excess = [tracker.count(block) - min(count, 255) for block, count in counts.items()]
    assert min(excess) >= 0
    assert sum(one > bound for one in excess) <= 0.018 * len(excess)


def served(*, host_blocks=64, **policy):
    tiers = TierConfig.build(host_blocks=host_blocks, instant=True, **policy)
    return SchedulerBuilder(num_gpu_blocks=17, max_model_len=256, max_num_batched_tokens=256, tiers=tiers).build()


def play(scheduler, streams):
    for i, stream in enumerate(streams):
        scheduler.add(make_request(f"r{len(scheduler.outcomes)}-{i}", n=120, max_tokens=1, stream=stream))
        scheduler.until_idle()


def test_blocks_that_were_used_once_are_not_offloaded():
    scheduler = served(frequency="small", offload_min_uses=2)
    play(scheduler, [1, 1, 2, 3, 4, 5])
    offloaded = [event for event in scheduler.events if event.medium == "CPU" and isinstance(event, BlockStored)]
    twice = make_request("x", n=112, stream=1).prompt_token_ids
    assert sorted(token for event in offloaded for token in event.token_ids) == sorted(twice), "and nothing else"
    stats = scheduler.engine.statistics().tiers
    assert stats.offloaded == 7
    assert stats.dropped >= 13
    play(scheduler, [1])
    assert list(scheduler.outcomes.values())[-1].cached_tokens == 112


def test_defaults_decide_as_before():
    def events(**policy):
        scheduler = served(host_blocks=9, **policy)
        play(scheduler, [i % 5 for i in range(20)])
        return repr(scheduler.events)

    assert events() == events(eviction="lru", duplicates="refuse") == events(frequency="small")


@pytest.mark.parametrize("policy", [{"eviction": "lineage"}, {"duplicates": "allow"}])
def test_events_and_ground_truth_agree_under_every_policy(policy):
    scheduler = served(host_blocks=9, disk_blocks=12, **policy)
    play(scheduler, [i % 5 for i in range(30)])
    live = Counter()
    for event in scheduler.events:
        for h in event.block_hashes:
            live[event.medium, h] += 1 if isinstance(event, BlockStored) else -1
    assert +live == Counter({(b.medium, b.hash): b.copies for b in scheduler.engine.blocks()})
    scheduler.assert_nothing_leaked()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"eviction": "fifo"}, "eviction 'fifo'"),
        ({"duplicates": "maybe"}, "duplicates 'maybe'"),
        ({"frequency": "huge"}, "frequency 'huge'"),
        ({"offload_min_uses": 2}, "offload_min_uses 2: uses are counted only with a frequency sketch"),
    ],
)
def test_a_bad_policy_is_one_clear_error(values, says):
    with pytest.raises(EngineConfigError) as caught:
        TierConfig.build(instant=True, **values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
