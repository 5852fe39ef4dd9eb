"""Managers over the engine's own pool and tiers: the life of a block, eviction, duplicates, events, many instances."""

import random

import pytest

from kvsync_events import BlockRemoved, BlockStored
from kvsync_testkit.errors import CapacityError, ConfigurationError
from kvsync_testkit.managers import (
    EventsManager,
    FrequencyTracker,
    ManagerBuilder,
    MultiInstancePopulator,
    PowersOfTwo,
    RegistryBuilder,
    Tier,
    TrackerSize,
    populate_manager_with_blocks,
)
from kvsync_testkit.token_blocks import create_disjoint_sequences, create_token_sequence

TIERS = list(Tier)


@pytest.fixture(params=TIERS)
def manager(request):
    return ManagerBuilder(request.param).block_count(8).block_size(4).events_manager(EventsManager()).build()


def test_a_block_is_found_from_its_registration_on_and_not_before(manager):
    sequence = create_token_sequence(3, 4)
    allocated = manager.allocate(3)
    assert allocated.block_ids == (0, 1, 2)
    completed = allocated.complete(sequence)
    assert manager.scan(sequence.hashes) == {}
    assert len(manager.match(sequence.hashes)) == 0
    with completed.register() as held:
        assert list(held.hashes) == sequence.hashes
    with manager.match(create_token_sequence(6, 4).hashes) as found:
        assert found.block_ids == (0, 1, 2)
        assert list(found.hashes) == sequence.hashes
    assert manager.available == 8


def test_a_match_ends_at_the_first_gap_and_a_scan_does_not(manager):
    a, b = create_disjoint_sequences([(2, 0), (2, 100)], 4)
    populate_manager_with_blocks(manager, a)
    populate_manager_with_blocks(manager, b)
    unknown = create_token_sequence(1, 4, 500).hashes
    wanted = [*a.hashes[:1], *unknown, *b.hashes]
    assert len(manager.match(wanted)) == 1
    assert manager.scan(wanted) == {a.hashes[0]: 0, b.hashes[0]: 2, b.hashes[1]: 3}


def test_held_blocks_survive_and_released_ones_make_room(manager):
    first = populate_manager_with_blocks(manager, 4)
    held = manager.match(first)
    assert manager.available == 4
    with pytest.raises(CapacityError, match="5 blocks asked for, 4 of 8 free"):
        manager.allocate(5)
    assert manager.resident == 4
    second = populate_manager_with_blocks(manager, 4, start=1000)
    assert manager.resident == 8
    populate_manager_with_blocks(manager, 4, start=2000)
    assert manager.scan(second) == {}
    assert len(manager.scan(first)) == 4
    held.release()
    held.release()
    populate_manager_with_blocks(manager, 8, start=3000)
    assert manager.scan(first) == {}


def test_eviction_takes_the_leaf_before_its_parent(manager):
    hashes = populate_manager_with_blocks(manager, 8)
    with manager.allocate(3):
        assert list(manager.scan(hashes)) == hashes[:5]


def test_unregistered_blocks_come_back_whole(manager):
    for _ in range(3):
        manager.allocate(8).release()
        with manager.allocate(8) as allocated:
            allocated.complete(create_token_sequence(8, 4)).release()
    assert manager.available == 8
    assert sorted(manager.allocate(8).block_ids) == list(range(8))


def test_a_state_that_was_left_cannot_be_used_again(manager):
    allocated = manager.allocate(1)
    completed = allocated.complete(create_token_sequence(1, 4))
    with pytest.raises(ConfigurationError, match="went to their next state"):
        allocated.complete(create_token_sequence(1, 4))
    allocated.release()
    held = completed.register()
    assert manager.available == 7
    held.release()
    with pytest.raises(ConfigurationError, match="released"):
        manager.allocate(1, after=held)


def test_content_must_fit(manager):
    with manager.allocate(2) as allocated:
        with pytest.raises(ConfigurationError, match="2 blocks were allocated, 1 are to complete"):
            allocated.complete(create_token_sequence(1, 4))
        with pytest.raises(ConfigurationError, match="a block of 16 tokens in a manager of 4"):
            allocated.complete(create_token_sequence(2, 16))
    assert manager.available == 8


def test_lower_tiers_refuse_a_duplicate_and_the_device_keeps_a_copy():
    for tier, free, ids, again in ((Tier.G1, 4, (2, 3), 2), (Tier.G2, 6, (0, 1), 0), (Tier.G3, 6, (0, 1), 0)):
        events = EventsManager()
        manager = ManagerBuilder(tier, block_count=8, block_size=4, events_manager=events).build()
        sequence = create_token_sequence(2, 4)
        with manager.register(sequence):
            events.take()
            with manager.register(sequence) as second:
                assert second.block_ids == ids
                assert manager.available == free
                assert sum(len(e.block_hashes) for e in events.take()) == again
        assert manager.resident == 2
        assert manager.available == 8


@pytest.mark.parametrize("tier", [Tier.G2, Tier.G3])
def test_lower_tiers_keep_copies_if_they_are_allowed(tier):
    events = EventsManager()
    manager = ManagerBuilder(tier, block_count=4, block_size=4, events_manager=events).duplicates("allow").build()
    sequence = create_token_sequence(2, 4)
    with manager.register(sequence), manager.register(sequence) as second:
        assert second.block_ids == (2, 3)
        assert manager.available == 0
    assert (manager.resident, manager.available) == (2, 4)
    assert sum(len(event.block_hashes) for event in events.take()) == 4
    with manager.allocate(2):
        assert manager.resident == 1, "the first block has lost both of its copies"
    assert sum(len(event.block_hashes) for event in events.take()) == 2


@pytest.mark.parametrize("tier", [Tier.G2, Tier.G3])
def test_lineage_keeps_what_a_tier_holds_usable_from_its_beginning(tier):
    plain, lineage = (
        ManagerBuilder(tier, block_count=6, block_size=4, eviction=order).build() for order in ("lru", "lineage")
    )
    sequence = create_token_sequence(6, 4)
    for manager in (plain, lineage):
        for block in sequence:
            manager.register([block]).release()
        manager.allocate(2)
    assert len(plain.match(sequence.hashes)) == 0
    assert len(lineage.match(sequence.hashes)) == 4
    assert lineage.available == 0


@pytest.mark.parametrize("tier", [Tier.G2, Tier.G3])
def test_lineage_never_leaves_a_child_without_its_parent(tier):
    rng = random.Random(7)
    manager = ManagerBuilder(tier, block_count=12, block_size=4).eviction("lineage").build()
    parents = {}
    held = []
    for _ in range(400):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).release()
            continue
        sequence = create_token_sequence(rng.randint(1, 4), 4, rng.choice((0, 100, 200, 300)))
        parents |= {block.hash: block.parent_hash for block in sequence}
        if len(sequence) <= manager.available:
            held.append(manager.register(sequence))
            resident = manager.scan(list(parents))
            assert all(parents[one] is None or parents[one] in resident for one in resident)


def test_the_device_has_no_choice_of_policies():
    for builder in (ManagerBuilder("G1").eviction("lineage"), ManagerBuilder("G1").duplicates("refuse")):
        with pytest.raises(ConfigurationError, match="G1 has no"):
            builder.build()
    with pytest.raises(ConfigurationError, match="did you mean 'lineage'"):
        ManagerBuilder("G2", eviction="lineag").build()


def test_every_copy_on_the_device_announces_its_own_end():
    events = EventsManager()
    manager = ManagerBuilder("G1", block_count=4, block_size=4, events_manager=events).build()
    sequence = create_token_sequence(1, 4)
    first = manager.register(sequence)
    manager.register(sequence).release()
    events.take()
    with manager.allocate(3) as allocated:
        assert set(allocated.block_ids) == {1, 2, 3}, "the held copy keeps its block"
        assert [e.block_hashes for e in events.take()] == [[sequence.hashes[0]]]
        assert manager.scan(sequence.hashes) == {sequence.hashes[0]: 0}
    first.release()
    manager.allocate(4)
    assert [type(e) for e in events.take()] == [BlockRemoved]


def test_the_device_holds_no_block_without_its_ancestors():
    manager = ManagerBuilder("G1", block_count=16, block_size=4).build()
    sequence = create_token_sequence(6, 4)
    populate_manager_with_blocks(manager, sequence[3:])
    with pytest.raises(ConfigurationError, match="not the one at position 0"):
        manager.register(sequence)
    with pytest.raises(ConfigurationError, match="position 4 already"):
        manager.register(sequence[4:])
    assert manager.available == 16
    populate_manager_with_blocks(manager, sequence[:3])
    assert len(manager.match(sequence.hashes)) == 6


def test_a_sequence_that_grows_holds_its_prefix():
    manager = ManagerBuilder("G1", block_count=6, block_size=4).build()
    sequence = create_token_sequence(6, 4)
    populate_manager_with_blocks(manager, sequence[:2])
    with manager.match(sequence.hashes) as prefix:
        grown = manager.allocate(2, after=prefix).complete(sequence[2:4]).register()
    assert manager.available == 2
    grown.release()
    assert manager.available == 6
    with manager.allocate(4):
        assert list(manager.scan(sequence.hashes)) == sequence.hashes[:2]
    manager.allocate(6)
    assert manager.resident == 0


@pytest.mark.parametrize("tier", TIERS)
def test_ids_stay_unique_through_random_lives(tier):
    """Every block id is free, allocated, or resident exactly once, whatever happens."""
    rng = random.Random(5)
    manager = ManagerBuilder(tier, block_count=12, block_size=4).build()
    held = []
    for _ in range(400):
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).release()
        else:
            count = rng.randint(1, 4)
            if count <= manager.available:
                held.append(manager.register(create_token_sequence(count, 4, rng.choice((0, 100, 200)))))
        used = [i for ids in manager._ids.values() for i in ids]
        assert sorted([*used, *manager._free_ids]) == list(range(12))
        for one in held:
            assert manager.scan(one.hashes).keys() == set(one.hashes)
    for one in held:
        one.release()
    assert manager.available == 12


def test_events_name_tier_chain_and_tokens(manager):
    sequence = create_token_sequence(2, 4)
    populate_manager_with_blocks(manager, sequence)
    (stored,) = manager.events_manager.take()
    assert isinstance(stored, BlockStored)
    assert stored.block_hashes == sequence.hashes
    assert (stored.parent_block_hash, stored.token_ids, stored.block_size) == (None, sequence.tokens, 4)
    assert stored.medium == manager.tier.medium
    manager.allocate(8)
    removed = manager.events_manager.take()
    assert [h for e in removed for h in e.block_hashes] == sequence.hashes[::-1]
    assert {e.medium for e in removed} == {manager.tier.medium}


@pytest.mark.parametrize("tier", TIERS)
def test_the_powers_of_two_policy_announces_and_removes_the_same_positions(tier):
    events = EventsManager(PowersOfTwo())
    manager = ManagerBuilder(tier, block_count=20, block_size=4, events_manager=events).build()
    sequence = create_token_sequence(20, 4)
    populate_manager_with_blocks(manager, sequence)
    stored = events.take()
    assert [e.block_hashes for e in stored] == [[sequence.hashes[i]] for i in (1, 2, 4, 8, 16)]
    for event, i in zip(stored, (1, 2, 4, 8, 16), strict=True):
        assert event.parent_block_hash == sequence.hashes[i - 1]
        assert tuple(event.token_ids) == sequence[i].tokens
    manager.allocate(20)
    removed = [h for e in events.take() for h in e.block_hashes]
    assert removed == [sequence.hashes[i] for i in (16, 8, 4, 2, 1)]


def test_pending_events_are_bounded():
    manager = ManagerBuilder("G2", events_manager=EventsManager(capacity=1)).build()
    populate_manager_with_blocks(manager, 1)
    with pytest.raises(CapacityError, match="nothing takes them"):
        populate_manager_with_blocks(manager, 1, start=500)


def test_a_registry_sees_all_of_its_managers():
    registry = RegistryBuilder().events_manager().frequency_tracking("small").build()
    device = ManagerBuilder("G1").registry(registry).build()
    host = ManagerBuilder("G2").registry(registry).build()
    hashes = populate_manager_with_blocks(device, 2)
    populate_manager_with_blocks(host, 1)
    assert registry.holders(hashes[0]) == [device, host]
    assert registry.holders(hashes[1]) == [device]
    assert registry.managers == (device, host)
    assert [e.medium for e in registry.events_manager.take()] == ["GPU", "CPU"]
    for _ in range(3):
        device.match(hashes[:1]).release()
    assert (registry.uses(hashes[0]), registry.uses(hashes[1])) == (5, 1)
    with pytest.raises(ConfigurationError, match="without frequency_tracking"):
        RegistryBuilder().build().uses(hashes[0])


def test_frequencies_are_counted_by_the_product():
    assert FrequencyTracker.__module__ == TrackerSize.__module__ == "kvsync_mockpod.engine.tiers.frequency"
    registry = RegistryBuilder(frequency_tracking="medium").build()
    assert isinstance(registry.frequency, FrequencyTracker)


@pytest.mark.parametrize("size", TrackerSize)
def test_frequencies_never_undercount_and_are_forgotten_in_time(size):
    tracker = FrequencyTracker(size)
    hashes = create_token_sequence(40, 4).hashes
    for times, one in enumerate(hashes, 1):
        for _ in range(times):
            tracker.touch(one)
    counts = [tracker.count(one) for one in hashes]
    assert all(count >= times for times, count in enumerate(counts, 1))
    assert sum(counts) <= 1.05 * sum(range(1, 41))
    tracker._halve()
    assert tracker.count(hashes[-1]) == counts[-1] // 2


def test_names_that_do_not_exist_are_refused_with_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'G2'"):
        ManagerBuilder("g2")
    with pytest.raises(ConfigurationError, match="did you mean 'medium'"):
        RegistryBuilder(frequency_tracking="medum")
    with pytest.raises(ConfigurationError):
        ManagerBuilder("G1").block_count(0).build()


@pytest.mark.parametrize("tier", TIERS)
def test_one_sequence_over_several_instances(tier):
    m1, m2, m3 = (ManagerBuilder(tier, block_count=32).build() for _ in range(3))
    populate_manager_with_blocks(m2, 3, start=9000)  # so that ids differ from positions
    spread = (
        MultiInstancePopulator()
        .total_blocks(32)
        .block_size(16)
        .add_instance(m1, 0, 16)
        .add_instance(m2, 16, 24)
        .add_instance(m3, 12, 20)
        .build()
    )
    assert len(spread.all_hashes()) == 32
    assert spread.instance_hashes(1) == spread.all_hashes()[16:24]
    assert spread.instance_block_ids(0) == list(range(16))
    assert spread.instance_block_ids(1) == list(range(3, 11))
    assert m2.scan(spread.all_hashes()) == dict(zip(spread.instance_hashes(1), range(3, 11), strict=True))
    assert set(m1.scan(spread.all_hashes())) & set(m3.scan(spread.all_hashes())) == set(spread.all_hashes()[12:16])


def test_an_instance_outside_the_sequence_is_refused():
    with pytest.raises(ConfigurationError, match="blocks 24 to 40 of a sequence of 32"):
        MultiInstancePopulator().add_instance(ManagerBuilder("G2").build(), 24, 40).build()
