"""The offload engine: held slots, refused duplicates, queued batches, onboarding in two steps, events and reports."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_events import BlockRemoved, BlockStored
from kvsync_mockpod.engine import EngineConfigError, Link, TierConfig
from kvsync_mockpod.engine.tiers import OffloadEngine, SourceBlock
from kvsync_testkit.scheduler import SchedulerBuilder, make_request, run_requests

MB, GB = 10**6, 10**9


class Sink:
    def __init__(self):
        self.seen = []

    def tier_stored(self, medium, blocks):
        self.seen += [("stored", medium, b.hash) for b in blocks]

    def tier_removed(self, medium, block):
        self.seen.append(("removed", medium, block.hash))


def offload(sink=None, disk_link=None, **values):
    defaults = {
        "block_bytes": MB,
        "host_blocks": 100,
        "device_to_host_bandwidth": GB,
        "host_to_device_bandwidth": GB,
        "disk_bandwidth": GB / 2,
    }
    return OffloadEngine(TierConfig.build(**(defaults | values)), sink or Sink(), disk_link=disk_link)


def blocks(*names):
    return [SourceBlock(name.encode()) for name in names]


# --- offload


def test_source_slots_are_held_until_the_whole_burst_has_arrived():
    engine = offload(batch_blocks=2, concurrent_batches=1)
    freed = []
    engine.on_release = freed.append
    assert engine.offer(blocks("a", "b", "c"), 0.0)
    assert engine.held_slots == 3
    engine.tick(0.002)
    assert engine.held_slots == 3, "two of three have arrived"
    engine.tick(0.0029)
    assert engine.held_slots == 3
    engine.tick(0.003)
    assert engine.held_slots == 0
    assert freed == [3]


def test_a_burst_of_which_nothing_is_accepted_is_dropped_at_once():
    engine = offload()
    assert engine.offer(blocks("a"), 0.0)
    assert not engine.offer(blocks("a"), 0.0), "in flight"
    engine.tick(1.0)
    assert not engine.offer(blocks("a"), 1.0), "resident"
    assert engine.held_slots == 0
    assert engine.earliest_pending_deadline() is None
    assert engine.report().duplicates == 2
    assert engine.report().device_to_host.bytes == MB


def test_only_what_is_new_is_copied_but_all_slots_of_the_burst_wait():
    engine = offload()
    engine.offer(blocks("a"), 0.0)
    engine.tick(1.0)
    assert engine.offer(blocks("a", "b", "c"), 1.0)
    assert engine.held_slots == 3
    engine.tick(1.002)
    assert engine.held_slots == 0
    assert engine.report().device_to_host.bytes == 3 * MB


def test_later_batches_start_at_the_deadline_of_an_active_one():
    engine = offload(batch_blocks=1, concurrent_batches=2)
    engine.offer(blocks("a", "b", "c"), 0.0)
    # Two transfers share the link until 2 ms; the third then has it alone for 1 ms.
    assert engine.earliest_pending_deadline() == 0.002
    engine.tick(0.002)
    assert engine.report().offloaded == 2
    assert engine.earliest_pending_deadline() == pytest.approx(0.003, abs=1e-12)
    engine.tick(0.003)
    assert engine.report().offloaded == 3


def test_a_full_host_evicts_the_least_recently_used_block_and_reports_it():
    sink = Sink()
    engine = offload(sink, host_blocks=2)
    for i, name in enumerate("abc"):
        engine.offer(blocks(name), float(i))
    engine.tick(9.0)
    assert sink.seen == [
        ("stored", "CPU", b"a"),
        ("stored", "CPU", b"b"),
        ("removed", "CPU", b"a"),
        ("stored", "CPU", b"c"),
    ]
    assert engine.report().dropped == 1


def test_host_blocks_go_to_disk_before_their_slots_are_used_again():
    sink = Sink()
    engine = offload(sink, host_blocks=1, disk_blocks=10)
    engine.offer(blocks("a"), 0.0)
    engine.tick(1.0)
    engine.offer(blocks("b"), 1.0)
    # The copy of a to disk takes 2 ms at half the speed; only then does the copy of b start, which takes 1 ms.
    assert engine.earliest_pending_deadline() == pytest.approx(1.002)
    engine.tick(1.002)
    assert engine.held_slots == 1
    engine.tick(1.0031)
    assert engine.held_slots == 0
    assert sink.seen[1:] == [("removed", "CPU", b"a"), ("stored", "STORAGE", b"a"), ("stored", "CPU", b"b")]
    assert engine.report().demoted == 1


def test_a_burst_that_can_never_fit_fails_and_frees_its_slots():
    engine = offload(host_blocks=1)
    engine.offer(blocks("a"), 0.0)
    engine.tick(1.0)
    pinned = engine.prepare_onboard_prefix([b"a"])
    engine.offer(blocks("b"), 1.0)
    assert engine.held_slots == 0, "the only host block is pinned: the copy fails at once"
    assert engine.report().dropped == 1
    engine.release(pinned)


# --- onboard


def test_prepare_pins_and_reserves_no_bandwidth():
    engine = offload(host_blocks=2)
    engine.offer(blocks("a", "b"), 0.0)
    engine.tick(1.0)
    assert engine.prepare_onboard_prefix([b"x", b"a"]) is None, "only prefixes are found"
    prepared = engine.prepare_onboard_prefix([b"a", b"b", b"x"])
    assert prepared.block_count == 2
    assert engine.earliest_pending_deadline() is None
    engine.offer(blocks("c"), 1.0)
    engine.tick(2.0)
    assert engine.prepare_onboard_prefix([b"a", b"b"]).block_count == 2, "pinned blocks are not evicted"


def test_start_is_complete_exactly_when_the_bytes_are_over():
    engine = offload()
    engine.offer(blocks("a"), 0.0)
    engine.tick(1.0)
    handle = engine.start_onboard_prefix(engine.prepare_onboard_prefix([b"a"]), 1.0)
    assert handle.block_count == 1
    engine.tick(1.0005)
    assert not handle.is_complete
    assert engine.earliest_pending_deadline() == 1.001
    engine.tick(1.001)
    assert handle.is_complete
    assert handle.done_s == 1.001
    assert engine.report().host_hits == 1


def test_a_prefix_that_continues_on_disk_takes_both_links():
    engine = offload(host_blocks=1, disk_blocks=4)
    engine.offer(blocks("b"), 0.0)
    engine.tick(1.0)
    engine.offer(blocks("a"), 1.0)
    engine.tick(2.0)  # b is on disk, a in host memory
    prepared = engine.prepare_onboard_prefix([b"a", b"b"])
    assert ([x.hash for x in prepared.host], [x.hash for x in prepared.disk]) == ([b"a"], [b"b"])
    handle = engine.start_onboard_prefix(prepared, 2.0)
    engine.tick(2.0029)
    assert not handle.is_complete
    # 2 ms from disk, then 1 ms to the device; the blocks in host memory were copied in the meantime
    engine.tick(2.0031)
    assert handle.is_complete
    assert (engine.report().host_hits, engine.report().disk_hits) == (1, 1)


def test_releasing_twice_is_harmless_and_unpins_once():
    engine = offload(host_blocks=1)
    engine.offer(blocks("a"), 0.0)
    engine.tick(1.0)
    handle = engine.start_onboard_prefix(engine.prepare_onboard_prefix([b"a"]), 1.0)
    engine.tick(2.0)
    engine.release(handle)
    engine.release(handle)
    engine.offer(blocks("b"), 2.0)
    engine.tick(3.0)
    assert engine.prepare_onboard_prefix([b"a"]) is None


def test_a_shared_disk_is_one_link_for_all_its_workers():
    disk = Link(GB / 2, "disk")
    engines = [offload(disk_link=disk, host_blocks=1, disk_blocks=4) for _ in range(2)]
    for engine in engines:
        engine.offer(blocks("a"), 0.0)
        engine.tick(1.0)
        engine.offer(blocks("b"), 1.0)
    # Two demotions of 1 MB share 0.5 GB/s and take 4 ms, not 2.
    assert [e.earliest_pending_deadline() for e in engines] == pytest.approx([1.004, 1.004])
    engines[0].tick(1.004)
    assert [e.report().demoted for e in engines] == [1, 1], "either worker's tick moves the shared link"


def test_tick_is_a_no_op_when_idle():
    sink = Sink()
    engine = offload(sink)
    for now in (0.0, 1.0, 1.0, 50.0):
        engine.tick(now)
    assert sink.seen == []
    assert engine.earliest_pending_deadline() is None


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), disk=st.booleans(), instant=st.booleans())
def test_random_lives_conserve_blocks_slots_and_bytes(seed, disk, instant):
    rng = random.Random(seed)
    sink = Sink()
    engine = offload(
        sink,
        host_blocks=rng.randint(1, 12),
        disk_blocks=8 if disk else 0,
        batch_blocks=rng.randint(1, 4),
        concurrent_batches=rng.randint(1, 3),
        instant=instant,
    )
    released, held, loads, now = [], 0, [], 0.0
    engine.on_release = released.append
    for _ in range(80):
        now += rng.choice([0.0, 0.0003, 0.001, 0.01])
        if rng.random() < 0.6:
            names = rng.sample("abcdefghijklmnop", rng.randint(1, 6))
            held += len(names) * engine.offer(blocks(*names), now)
        elif rng.random() < 0.5:
            prepared = engine.prepare_onboard_prefix([n.encode() for n in rng.sample("abcdefgh", 4)])
            if prepared is not None:
                loads.append(engine.start_onboard_prefix(prepared, now))
        elif loads and rng.random() < 0.8:
            engine.release(loads.pop(rng.randrange(len(loads))))
        engine.tick(now)
        assert engine.held_slots == held - sum(released) >= 0
        deadline = engine.earliest_pending_deadline()
        assert deadline is None or deadline > now, "everything due has been completed"
    handles = list(loads)
    while (deadline := engine.earliest_pending_deadline()) is not None:
        engine.tick(deadline)
    assert engine.held_slots == 0
    assert all(h.is_complete for h in handles)
    table = {("CPU", b.hash) for m, b in engine.blocks() if m == "CPU"}
    table |= {("STORAGE", b.hash) for m, b in engine.blocks() if m == "STORAGE"}
    replayed = set()
    for kind, medium, h in sink.seen:
        if kind == "stored":
            assert (medium, h) not in replayed, "stored twice"
            replayed.add((medium, h))
        else:
            replayed.remove((medium, h))
    assert replayed == table
    report = engine.report()
    if not instant:
        assert report.device_to_host.bytes == report.offloaded * MB
        assert report.disk.bytes == (report.demoted + report.disk_hits) * MB
        assert report.host_to_device.bytes == (report.host_hits + report.disk_hits) * MB


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "block_bytes is missing"),
        ({"block_bytes": 0}, "block_bytes 0"),
        ({"block_bytes": 1, "disk_bandwidth": 0}, "disk_bandwidth 0"),
        ({"block_bytes": 1, "host_to_device_bandwidth": -5}, "host_to_device_bandwidth -5"),
        ({"block_bytes": 1, "host_block": 5}, "did you mean 'host_blocks'?"),
        ({"block_bytes": 1, "batch_blocks": 0}, "batch_blocks 0"),
    ],
)
def test_a_bad_tier_configuration_is_one_clear_error(values, says):
    with pytest.raises(EngineConfigError) as caught:
        TierConfig.build(**values)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- within the engine


def tier_run(tiers, disk_link=None, **values):
    values = {"num_gpu_blocks": 17, "max_model_len": 256, "max_num_batched_tokens": 256} | values
    return SchedulerBuilder(tiers=tiers, disk_link=disk_link, **values).build()


SLOW = {"block_bytes": MB, "device_to_host_bandwidth": GB, "host_to_device_bandwidth": GB, "disk_bandwidth": GB}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_evicted_prefix_comes_back_from_the_host(asynchronous):
    driver = tier_run(TierConfig.build(**SLOW, host_blocks=64), async_scheduling=asynchronous)
    for i, stream in enumerate((1, 2, 3, 1)):
        driver.add(make_request(f"r{i}", n=120, max_tokens=4, stream=stream))
        driver.until_idle()
    assert [driver.outcomes[f"r{i}"].cached_tokens for i in range(4)] == [0, 0, 0, 112]
    report = driver.engine.statistics().tiers
    assert report.host_hits > 0
    assert report.host_to_device.bytes == report.host_hits * MB
    assert driver.engine.statistics().free_blocks == 16
    plain = tier_run(None)
    plain.add(make_request("r3", n=120, max_tokens=4, stream=1))
    plain.until_idle()
    assert len(driver.outcomes["r3"].tokens) == len(plain.outcomes["r3"].tokens)


def test_a_parked_request_does_not_delay_others():
    driver = tier_run(TierConfig.build(**SLOW | {"host_to_device_bandwidth": 10 * MB}, host_blocks=64))
    for i, stream in enumerate((1, 2, 3)):
        driver.add(make_request(f"r{i}", n=120, max_tokens=2, stream=stream))
        driver.until_idle()
    driver.add(make_request("back", n=120, max_tokens=2, stream=1), make_request("small", n=5, max_tokens=4, stream=9))
    step = driver.step()
    while not step.scheduled:
        step = driver.step()
    assert [rid for rid, _n in step.scheduled] == ["small"]
    assert driver.engine.statistics().waiting == 1
    driver.until_idle()
    assert driver.outcomes["small"].finished_s < driver.outcomes["back"].finished_s
    assert driver.outcomes["back"].cached_tokens == 112


def test_pause_new_lets_a_parked_request_go_on():
    """A parked request holds blocks. As in vLLM it may run to its end, while requests that hold none stay queued."""
    driver = tier_run(TierConfig.build(**SLOW | {"host_to_device_bandwidth": 10 * MB}, host_blocks=64))
    for i, stream in enumerate((1, 2, 3)):
        driver.add(make_request(f"r{i}", n=120, max_tokens=2, stream=stream))
        driver.until_idle()
    driver.add(make_request("back", n=120, max_tokens=2, stream=1))
    while not driver.engine.statistics().waiting_deferred:
        driver.step()
    driver.engine.pause("new")
    driver.add(make_request("new", n=5, max_tokens=2, stream=9))
    driver.until_idle()
    assert driver.outcomes["back"].reason == "length"
    assert driver.outcomes["new"].reason is None
    driver.engine.pause(None)
    driver.until_idle()
    assert driver.outcomes["new"].reason == "length"


def test_a_parked_request_can_be_aborted():
    driver = tier_run(TierConfig.build(**SLOW | {"host_to_device_bandwidth": 10 * MB}, host_blocks=64))
    for i, stream in enumerate((1, 2, 3)):
        driver.add(make_request(f"r{i}", n=120, max_tokens=2, stream=stream))
        driver.until_idle()
    driver.add(make_request("back", n=120, max_tokens=2, stream=1))
    driver.step()
    assert driver.engine.statistics().free_blocks < 16
    assert driver.engine.abort("back")
    driver.until_idle()
    assert driver.outcomes["back"].reason == "abort"
    assert driver.engine.statistics().free_blocks == 16


def test_running_requests_wait_for_slots_instead_of_being_preempted():
    driver = tier_run(TierConfig.build(**SLOW | {"device_to_host_bandwidth": 10 * MB}, host_blocks=64))
    driver.add(make_request("old", n=200, max_tokens=2, stream=1))
    driver.until_idle()
    driver.add(make_request("new", n=60, max_tokens=100, stream=2))
    driver.until_idle()
    assert driver.outcomes["new"].reason == "length"
    assert driver.engine.statistics().preemptions == 0
    assert driver.engine.statistics().tiers.offloaded > 0


@pytest.mark.parametrize("form", ["full", "hash_only"])
def test_events_of_lower_tiers_carry_their_medium(form):
    driver = tier_run(TierConfig.build(**SLOW, host_blocks=8, disk_blocks=32, events=form))
    for i in range(8):
        driver.add(make_request(f"r{i}", n=120, max_tokens=2, stream=i % 5))
        driver.until_idle()
    lower = [e for e in driver.events if getattr(e, "medium", "GPU") != "GPU"]
    assert {e.medium for e in lower} == {"CPU", "STORAGE"}
    stored = [e for e in lower if isinstance(e, BlockStored)]
    known = {}
    for event in driver.events:
        if isinstance(event, BlockStored) and event.medium == "GPU":
            parent = event.parent_block_hash
            for i, h in enumerate(event.block_hashes):
                known[h] = (parent, event.token_ids[16 * i : 16 * i + 16])
                parent = h
    for event in stored:
        if form == "hash_only":
            assert (event.block_size, event.token_ids, event.parent_block_hash) == (0, [], None)
            continue
        parent = event.parent_block_hash
        for i, h in enumerate(event.block_hashes):
            assert known[h] == (parent, event.token_ids[16 * i : 16 * i + 16])
            parent = h
    live = set()
    for event in driver.events:
        for h in getattr(event, "block_hashes", ()):
            (live.add if isinstance(event, BlockStored) else live.discard)((event.medium, h))
    assert live == {(b.medium, b.hash) for b in driver.engine.blocks()}
    log = set()
    for entry in driver.engine.log.since(0):
        (log.add if entry.kind == "stored" else log.discard)((entry.medium, entry.hash))
    assert log == live
    assert any(isinstance(e, BlockRemoved) and e.medium == "CPU" for e in lower)


def test_a_reset_announces_what_the_lower_tiers_still_hold():
    driver = tier_run(TierConfig.build(**SLOW, host_blocks=64))
    for i in range(3):
        driver.add(make_request(f"r{i}", n=120, max_tokens=2, stream=i))
        driver.until_idle()
    below = {b.hash for b in driver.engine.blocks() if b.medium == "CPU"}
    assert below
    seen = len(driver.events)
    assert driver.engine.reset_prefix_cache()
    driver.until_idle()
    driver.step()
    again = driver.events[seen:]
    assert type(again[0]).__name__ == "AllBlocksCleared"
    assert {h for e in again[1:] for h in e.block_hashes} == below
    assert driver.engine.reset_prefix_cache(reset_external=True)
    assert list(driver.engine.blocks()) == []


@pytest.mark.parametrize("instant", [False, True])
@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("seed", range(4))
def test_random_workloads_end_with_the_right_outputs(seed, policy, instant):
    rng = random.Random(seed)
    plan = [
        make_request(
            f"r{i}", n=rng.randint(1, 180), max_tokens=rng.randint(1, 60), stream=rng.randrange(5), priority=i % 3
        )
        for i in range(40)
    ]
    tiers = TierConfig.build(
        **SLOW | {"device_to_host_bandwidth": 0.1 * GB, "host_to_device_bandwidth": 0.05 * GB},
        host_blocks=rng.choice([8, 40]),
        disk_blocks=rng.choice([0, 30]),
        instant=instant,
    )
    driver = tier_run(tiers, policy=policy, async_scheduling=bool(seed % 2))
    plain = run_requests(plan, num_gpu_blocks=400, max_model_len=256)
    for r in plan:
        driver.add(r)
        if rng.random() < 0.5:
            driver.step()
    driver.until_idle()
    assert {r: o.tokens for r, o in driver.outcomes.items()} == {r: o.tokens for r, o in plain.outcomes.items()}
    stats = driver.engine.statistics()
    assert stats.free_blocks == stats.total_blocks
    assert stats.tiers.offloaded > 0
    gpu = [b for b in driver.engine.blocks() if b.medium == "GPU"]
    assert sum(b.copies for b in gpu) <= 16


def test_two_runs_are_the_same_to_the_byte():
    def play():
        driver = tier_run(TierConfig.build(**SLOW, host_blocks=8, disk_blocks=16))
        for i in range(12):
            driver.add(make_request(f"r{i}", n=100, max_tokens=9, stream=i % 5))
            driver.step()
        driver.until_idle()
        return repr(driver.events), driver.now

    assert play() == play()
