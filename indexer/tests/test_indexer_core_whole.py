"""Atomic payloads, limits, publishers and snapshots, in every installed core."""

import msgpack
import pytest
from index_core_helpers import FULL, PROMPT, WINDOW, batch, hashes, matched, new_core, payload, put, removed, stored

from kvsync_events import DecodeError
from kvsync_indexer.core import (
    Applied,
    Context,
    CoreLimits,
    LimitError,
    PublisherConflictError,
    SnapshotError,
    UnknownPublisherError,
    make_core,
)

# -- atomic payloads ---------------------------------------------------------------------------------------------------


def test_a_malformed_payload_changes_nothing(core):
    put(core, stored([1], PROMPT[:4]))
    before = core.snapshot()
    good = payload(stored([2], PROMPT[4:8], parent=1))
    for bad in (b"", b"\xc1", good[:-1], good + b"\x00", b"\x93\xcb", payload(stored([3], PROMPT[:4]))[:-3], b"\x90"):
        with pytest.raises(DecodeError):
            core.apply("a", bad)
        assert core.snapshot() == before


def test_an_unknown_event_loses_that_event_only(core):
    applied = core.apply(
        "a", msgpack.packb([1.0, [["Surprise", 1], ["BlockStored", [1], None, PROMPT[:4], 4, None]], 0])
    )
    assert applied == Applied(payloads=1, events=1, stored=1, unknown_events=1)
    assert matched(core, PROMPT) == {"a": 1}


def test_apply_many_adds_up_and_keeps_what_came_before_an_error(core):
    first, second = payload(stored([1], PROMPT[:4])), payload(stored([2], PROMPT[4:8], parent=1))
    assert core.apply_many("a", [first, second]) == Applied(payloads=2, events=2, stored=2)
    with pytest.raises(DecodeError, match=r"^batch 2 of 3: "):
        core.apply_many("b", [first, b"\xc1", second])
    assert matched(core, PROMPT) == {"a": 2, "b": 1}


def test_apply_many_names_the_batch_that_is_over_a_limit(kind):
    core = new_core(kind, "a", limits=CoreLimits(max_blocks=2))
    batches = [payload(stored([number], PROMPT[:4])) for number in (1, 2, 3, 4)]
    with pytest.raises(LimitError, match=r"^batch 3 of 4: a holds 2 blocks and stores 1 more") as caught:
        core.apply_many("a", batches)
    assert caught.value.batch == 2
    assert core.stats().blocks == 2
    with pytest.raises(LimitError, match=r"^a holds 2") as caught:
        core.apply("a", batches[3])
    assert caught.value.batch is None


def test_apply_batch_is_apply_without_the_bytes(core):
    applied = core.apply_batch("a", batch(stored([1, 2], PROMPT[:8]), removed(2)))
    assert applied == put(core, stored([1, 2], PROMPT[:8]), removed(2), publisher="b")
    assert [tuple(row) for row in core.dump("a")] == [tuple(row) for row in core.dump("b")]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_blocks_of_a_publisher_are_limited(kind):
    core = new_core(kind, "a", "b", limits=CoreLimits(max_blocks=3))
    put(core, stored([1, 2, 3], PROMPT[:12]))
    before = core.snapshot()
    with pytest.raises(LimitError, match="limit of 3"):
        put(core, removed(1), stored([4], PROMPT[12:], parent=3))
    assert core.snapshot() == before
    put(core, stored([1, 2, 3], PROMPT[:12]), publisher="b")


def test_orphans_are_limited_and_the_refused_counted(kind):
    core = new_core(kind, limits=CoreLimits(max_orphans=2))
    applied = put(core, stored([5, 6, 7], PROMPT[:12], parent=1))
    assert (applied.stored, applied.orphans, applied.refused) == (2, 2, 1)
    assert hashes(core) == {5, 6}
    assert core.stats("a").refused == core.stats().refused == 1
    assert put(core, stored([8], [], size=0)).refused == 1
    put(core, removed(5))
    assert put(core, stored([8], [], size=0)).refused == 0


def test_publishers_are_limited(kind):
    core = new_core(kind, "a", limits=CoreLimits(max_publishers=1))
    core.add_publisher("a", "m")
    with pytest.raises(LimitError):
        core.add_publisher("b", "m")


def test_pairs_of_medium_and_group_are_limited(core):
    put(core, *(stored([n], PROMPT[:4], group_idx=n) for n in range(64)))
    before = core.snapshot()
    with pytest.raises(LimitError, match="limit of 64"):
        put(core, stored([1], PROMPT[:4], medium="CPU"))
    with pytest.raises(LimitError, match="medium"):
        put(core, stored([1], PROMPT[:4], medium="x" * 65), publisher="b")
    assert core.snapshot() == before


def test_block_sizes_of_a_group_are_limited(core):
    for size in range(1, 10):
        put(core, stored([size], PROMPT[:size], size=size))
    assert core.stats("a").orphans == 1
    assert core.match(Context("m"), PROMPT[:9])[0].block_size == 8


# -- publishers --------------------------------------------------------------------------------------------------------


def test_publishers_come_and_go(core):
    assert core.publishers() == ["a", "b", "x"]
    put(core, stored([1, 2], PROMPT[:8]))
    assert core.remove_publisher("a") == 2
    assert core.remove_publisher("a") == 0
    assert core.publishers() == ["b", "x"]
    assert matched(core, PROMPT) == {}
    core.add_publisher("a", "other")
    assert list(core.dump("a")) == []
    with pytest.raises(PublisherConflictError):
        core.add_publisher("a", "m")


def test_a_cleared_publisher_is_as_new(core):
    put(core, stored([1, 2], PROMPT[:8], **WINDOW))
    assert core.clear_publisher("a") == 2
    put(core, stored([2], PROMPT[4:8], parent=1), stored([5, 6], PROMPT[:8]))
    assert matched(core, PROMPT) == {"a": 2}
    assert core.stats("a").orphans == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda core: core.apply("nobody", b""),
        lambda core: core.apply_many("nobody", []),
        lambda core: core.apply_batch("nobody", batch()),
        lambda core: core.clear_publisher("nobody"),
        lambda core: core.digest("nobody"),
        lambda core: core.dump("nobody"),
        lambda core: core.stats("nobody"),
    ],
)
def test_an_unknown_publisher_is_an_error(core, call):
    with pytest.raises(UnknownPublisherError, match="nobody"):
        call(core)


def test_stats(core):
    put(core, stored([1, 2], PROMPT[:8]), stored([1], [], size=0, medium="CPU"), stored([9], PROMPT[:4], parent=8))
    put(core, stored([1, 2], PROMPT[:8]), publisher="b")
    one, everything = core.stats("a"), core.stats()
    assert (one.publishers, one.blocks, one.orphans) == (1, 4, 1)
    assert (everything.publishers, everything.blocks, everything.orphans, everything.keys) == (3, 6, 1, 2)
    assert everything.bytes_estimate > 0


# -- snapshots ---------------------------------------------------------------------------------------------------------


def busy(core):
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL), stored([3, 4], PROMPT, **WINDOW), removed(4, group_idx=0))
    put(core, stored([7], PROMPT[:4], parent=6), stored([8], [], size=0, medium="CPU"))
    put(core, stored([1], PROMPT[:4], lora_name="l"), stored([1], PROMPT[:4], lora_name="l"), publisher="b")
    return core


def test_a_snapshot_brings_everything_back(core, kind):
    data = busy(core).snapshot()
    other = new_core(kind, "stranger")
    assert other.restore(data) == ["a", "b", "x"]
    assert other.snapshot() == data
    assert list(other.dump("a")) == list(core.dump("a"))
    assert other.digest("a") == core.digest("a")
    for context in (Context("m"), Context("m", lora="l")):
        assert list(other.match(context, PROMPT)) == list(core.match(context, PROMPT))
    for one in (core, other):
        assert put(one, stored([6], PROMPT[:4], **FULL)).attached == 1
    assert other.snapshot() == core.snapshot()


def test_a_snapshot_carries_the_seed(kind):
    first, second = new_core(kind, seed=2**63 + 5), new_core(kind, seed=6)
    put(first, stored([1], PROMPT[:4]))
    put(second, stored([1], PROMPT[:4]))
    assert first.snapshot() != second.snapshot()
    second.restore(first.snapshot())
    assert matched(second, PROMPT) == {"a": 1}
    put(second, stored([2], PROMPT[4:8], parent=1))
    assert matched(second, PROMPT) == {"a": 2}


def test_an_empty_core_has_a_snapshot(kind):
    core = make_core(kind)
    assert core.restore(core.snapshot()) == []


def test_every_damaged_byte_is_noticed(core):
    data = busy(core).snapshot()
    before = core.snapshot()
    for at in range(len(data)):
        bad = bytearray(data)
        bad[at] ^= 0x41
        with pytest.raises(SnapshotError):
            core.restore(bytes(bad))
    for bad in (b"", data[:40], data[:-1], data + b"\0"):
        with pytest.raises(SnapshotError):
            core.restore(bad)
    assert core.snapshot() == before


def test_a_snapshot_over_the_limits_is_refused(core, kind):
    data = busy(core).snapshot()
    for limits in (CoreLimits(max_publishers=2), CoreLimits(max_blocks=5), CoreLimits(max_orphans=1)):
        other = new_core(kind, limits=limits)
        with pytest.raises(SnapshotError):
            other.restore(data)
        assert other.publishers() == ["a"]
