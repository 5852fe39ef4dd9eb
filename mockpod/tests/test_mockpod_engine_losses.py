"""What must not be left behind: by a restart that loses all blocks, by aborted swap-ins, and by copies that fail.

The two defects that a test run once let through (an aborted swap-in stays pinned; a failed batch keeps its pending
mark) are planted here as mutants, each of which the check beside it must catch.
"""

import random

import pytest

from kvsync_events import AllBlocksCleared, BlockStored
from kvsync_mockpod.engine import Link, TierConfig
from kvsync_mockpod.engine.manager import BlockManager
from kvsync_mockpod.engine.tiers import OffloadEngine, SourceBlock
from kvsync_mockpod.engine.tiers.offload import Offloader
from kvsync_testkit.scheduler import SchedulerBuilder, make_request

MB, GB = 10**6, 10**9
TIMED = {"block_bytes": MB, "device_to_host_bandwidth": GB, "host_to_device_bandwidth": GB, "disk_bandwidth": GB}
SLOW_OUT, SLOW_IN = {"device_to_host_bandwidth": 10 * MB}, {"host_to_device_bandwidth": 10 * MB}


def build(**tiers):
    config = TierConfig.build(**({"host_blocks": 64} | TIMED | tiers))
    return SchedulerBuilder(num_gpu_blocks=17, max_model_len=256, max_num_batched_tokens=256, tiers=config).build()


def serve(scheduler, rid, stream):
    scheduler.add(make_request(rid, n=120, max_tokens=2, stream=stream))
    scheduler.until_idle()


def filled(**tiers):
    """A scheduler with blocks on the device and in host memory."""
    scheduler = build(**tiers)
    for i, stream in enumerate((1, 2, 3)):
        serve(scheduler, f"r{i}", stream)
    return scheduler


def with_a_copy_out():
    """An offload is under way, and its device slots are held."""
    scheduler = build(**SLOW_OUT)
    for i, stream in enumerate((1, 2)):
        serve(scheduler, f"r{i}", stream)
    scheduler.add(make_request("r2", n=120, max_tokens=40, stream=3))
    scheduler.step()
    assert scheduler.engine.next_deadline() is not None
    return scheduler


def with_a_copy_in():
    """A request waits for its swap-in."""
    scheduler = filled(**SLOW_IN)
    scheduler.add(make_request("back", n=120, max_tokens=2, stream=1))
    while not scheduler.engine.statistics().waiting_deferred:
        scheduler.step()
    assert any(block.pins for _, block in scheduler.engine._tiers.blocks())
    return scheduler


def with_a_demotion():
    """Host memory is full and copies to a slow disk."""
    scheduler = build(host_blocks=8, disk_blocks=64, disk_bandwidth=MB)
    for i in range(6):
        scheduler.add(make_request(f"r{i}", n=120, max_tokens=2, stream=i))
    while scheduler.engine.has_work() and not len(scheduler.engine._tiers._links.disk):
        scheduler.step()
    assert len(scheduler.engine._tiers._links.disk)
    return scheduler


@pytest.mark.parametrize("state", [filled, with_a_copy_out, with_a_copy_in, with_a_demotion])
def test_a_restart_loses_everything_and_announces_nothing(state):
    scheduler = state()
    engine = scheduler.engine
    engine.lose_blocks(scheduler.now)
    assert list(engine.blocks()) == []
    assert engine.next_deadline() is None, "no copy arrives after the restart"
    before = len(scheduler.events)
    stats = engine.statistics()
    assert stats.free_blocks == stats.total_blocks
    unfinished = [rid for rid, outcome in scheduler.outcomes.items() if outcome.reason is None]
    scheduler.until_idle()
    after = scheduler.events[before:]
    assert not any(isinstance(event, AllBlocksCleared) for event in after)
    assert {scheduler.outcomes[rid].reason for rid in unfinished} <= {"length"}
    scheduler.assert_nothing_leaked()
    live = set()
    for event in after:
        for h in event.block_hashes:
            (live.add if isinstance(event, BlockStored) else live.discard)((event.medium, h))
    assert live == {(b.medium, b.hash) for b in engine.blocks()}, "an index that starts anew has what the engine has"


@pytest.mark.parametrize("state", [filled, with_a_copy_out, with_a_copy_in, with_a_demotion])
def test_a_clear_after_a_restart_is_announced(state):
    scheduler = state()
    scheduler.engine.lose_blocks(scheduler.now)
    scheduler.until_idle()
    before = len(scheduler.events)
    assert scheduler.engine.reset_prefix_cache(reset_external=True)
    serve(scheduler, "next", 9)
    assert isinstance(scheduler.events[before], AllBlocksCleared)


def test_events_that_were_not_taken_are_lost_with_the_process():
    scheduler = filled()
    assert scheduler.engine.reset_prefix_cache()
    scheduler.engine.lose_blocks(scheduler.now)
    before = len(scheduler.events)
    serve(scheduler, "next", 9)
    assert not any(isinstance(event, AllBlocksCleared) for event in scheduler.events[before:])


class Sink:
    def __init__(self):
        self.stored = []

    def tier_stored(self, medium, blocks):
        self.stored += [(medium, block.hash) for block in blocks]

    def tier_removed(self, medium, block):
        pass


def test_a_restart_ends_no_copy_of_another_worker_on_the_same_disk():
    disk, sinks = Link(GB, "disk"), [Sink(), Sink()]
    config = TierConfig.build(host_blocks=1, disk_blocks=4, **TIMED)
    one, two = (OffloadEngine(config, sink, disk_link=disk) for sink in sinks)
    for engine in (one, two):
        engine.offer([SourceBlock(b"a")], 0.0)
        engine.tick(1.0)
        engine.offer([SourceBlock(b"b")], 1.0)
    assert len(disk) == 2
    one.lose(1.001)  # each demotion has moved half of its megabyte
    assert two.earliest_pending_deadline() == pytest.approx(1.0015), "the other one has the link to itself now"
    two.tick(2.0)
    one.tick(2.0)
    assert sinks[0].stored == [("CPU", b"a")]
    assert sinks[1].stored == [("CPU", b"a"), ("STORAGE", b"a"), ("CPU", b"b")]
    assert one.blocks() == []


def test_instant_transfers_take_no_time_with_a_disk_too():
    config = TierConfig.build(host_blocks=1, disk_blocks=8, block_bytes=MB, instant=True, disk_bandwidth=1.0)
    scheduler = SchedulerBuilder(
        num_gpu_blocks=17, max_model_len=256, tiers=config, disk_link=config.make_disk_link()
    ).build()
    for i in range(6):
        serve(scheduler, f"r{i}", i % 4)
        assert scheduler.engine.next_deadline() is None
    assert scheduler.now == 0.0
    assert scheduler.engine.statistics().tiers.demoted > 0


# --- the two mutants


def check_an_aborted_swap_in_is_unpinned():
    scheduler = with_a_copy_in()
    assert scheduler.engine.abort("back")
    scheduler.until_idle()
    tiers = scheduler.engine._tiers
    assert {block.pins for _, block in tiers.blocks()} == {0}
    # Every host block can be evicted again: as many new blocks as the host has slots push all old ones out.
    old = {block.hash for _, block in tiers.blocks()}
    tiers.offer([SourceBlock(b"%d" % i) for i in range(64)], scheduler.now)
    tiers.tick(scheduler.now + 10.0)
    assert not old & {block.hash for _, block in tiers.blocks()}


def check_a_failed_batch_can_be_offered_again():
    engine = OffloadEngine(TierConfig.build(host_blocks=1, **TIMED), Sink())
    engine.offer([SourceBlock(b"a")], 0.0)
    engine.tick(1.0)
    pinned = engine.prepare_onboard_prefix([b"a"])
    assert engine.offer([SourceBlock(b"b")], 1.0)
    assert engine.report().dropped == 1
    engine.release(pinned)
    assert engine.offer([SourceBlock(b"b")], 2.0), "the failed copy is not under way any more"
    engine.tick(3.0)
    assert [block.hash for _, block in engine.blocks()] == [b"b"]


def keep_pinned(manager, seq):
    manager.pool.release(seq.table)
    seq.loading = None
    manager._promised.pop(seq, None)


def keep_mark(offloader, batch):
    offloader.counts.dropped += len(batch.blocks)
    offloader._end(batch)


MUTANTS = {
    "an aborted swap-in stays pinned": (BlockManager, "release", keep_pinned, check_an_aborted_swap_in_is_unpinned),
    "a failed batch keeps its mark": (Offloader, "_fail", keep_mark, check_a_failed_batch_can_be_offered_again),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_tiers_let_go_of_what_ended(name):
    MUTANTS[name][3]()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_tier_that_does_not_let_go_is_caught(name, monkeypatch):
    kind, method, mutant, check = MUTANTS[name]
    assert hasattr(kind, method)
    monkeypatch.setattr(kind, method, mutant)
    with pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize("seed", range(6))
def test_random_losses_leave_a_consistent_engine(seed):
    rng = random.Random(seed)
    scheduler = build(
        host_blocks=rng.choice([4, 40]),
        disk_blocks=rng.choice([0, 30]),
        device_to_host_bandwidth=0.1 * GB,
        host_to_device_bandwidth=0.05 * GB,
    )
    for i in range(40):
        scheduler.add(
            make_request(f"r{i}", n=rng.randint(1, 180), max_tokens=rng.randint(1, 40), stream=rng.randrange(5))
        )
        for _ in range(rng.randrange(4)):
            scheduler.step()
        if rng.random() < 0.2:
            scheduler.engine.lose_blocks(scheduler.now)
            assert list(scheduler.engine.blocks()) == []
            assert scheduler.engine.next_deadline() is None
    scheduler.until_idle()
    scheduler.assert_nothing_leaked()
    scheduler.steps.assert_one_end_each(scheduler.outcomes)
    assert {block.pins for _, block in scheduler.engine._tiers.blocks()} <= {0}
