"""What hostile but legal events cost, in every installed core: counted steps, not seconds."""

import pytest
from index_core_helpers import KINDS, PROMPT, batch, matched, new_core, payload, put, removed, stored

from kvsync_events import AllBlocksCleared
from kvsync_indexer.core import Context, CoreLimits, LimitError, make_core

GPU_BLOCKS = 4_000


def filled(kind):
    """A core with many blocks on the device, which clears of other media must not visit."""
    core = new_core(kind)
    for first in range(0, GPU_BLOCKS, 1000):
        put(core, stored(range(first + 1, first + 1001), [0] * 4000, parent=first or None))
    return core


@pytest.mark.parametrize("kind", KINDS)
def test_clears_of_one_medium_visit_what_they_drop(kind):
    core = filled(kind)
    for at in range(200):
        event = stored([at + 1], [], size=0, medium="CPU")
        core.apply_batch("a", batch(event, AllBlocksCleared("CPU"), AllBlocksCleared("CPU")))
    assert core.stats("a").blocks == GPU_BLOCKS
    assert core.stats("a").work <= 2 * GPU_BLOCKS + 1000, "a clear visits the blocks of its own medium only"


@pytest.mark.parametrize("kind", KINDS)
def test_clears_of_the_first_medium_visit_what_they_drop(kind):
    """The same when the medium that is cleared is the one that was used first."""
    core = new_core(kind)
    put(core, stored([5], PROMPT[:4], medium="CPU"))
    put(core, stored(range(100, 100 + GPU_BLOCKS), [0] * 4 * GPU_BLOCKS))
    for at in range(200):
        core.apply_batch("a", batch(stored([at + 1], [], size=0, medium="CPU"), AllBlocksCleared("CPU")))
    assert core.stats("a").work <= 2 * GPU_BLOCKS + 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_medium_that_churns_is_cleared_whole(kind):
    """Blocks that come, go and come back are dropped by a clear once, and the others stay."""
    core = filled(kind)
    for at in range(3000):
        put(
            core,
            stored([at % 50 + 1], [], size=0, medium="CPU"),
            removed(at % 50 + 1, medium="CPU") if at % 3 else removed(0),
        )
    before = core.stats("a").blocks - GPU_BLOCKS
    assert core.apply_batch("a", batch(AllBlocksCleared("cpu"))).cleared == before
    assert core.stats("a").blocks == GPU_BLOCKS
    assert core.apply_batch("a", batch(AllBlocksCleared("GPU"))).cleared == GPU_BLOCKS
    assert matched(core, [0] * 40) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_changes_of_a_window_are_planned_once_per_match(kind):
    core = filled(kind)
    for group in range(30):
        put(core, stored([group], [1] * 4, group_idx=group))
    core.match(Context("m"), [0] * 8)
    before = core.stats("a").work
    changes = [
        stored([], [], size=0, group_idx=3, kv_cache_spec_kind="sliding_window", kv_cache_spec_sliding_window=window)
        for window in range(1, 2000)
    ]
    put(core, *changes)
    core.match(Context("m"), [0] * 8)
    core.match(Context("m"), [0] * 8)
    assert 0 < core.stats("a").work - before <= 200


def test_apply_many_stops_when_its_budget_is_used_up(core):
    payloads = [payload(stored([at + 1], [at] * 128, size=128)) for at in range(10)]
    work = len(payloads[0]) // 64
    assert core.apply_many("a", payloads, budget=1).payloads == 1
    assert core.apply_many("a", payloads[1:], budget=3 * work).payloads == 3
    applied = core.apply_many("a", payloads[4:], budget=10**9)
    assert (applied.payloads, applied.stored) == (6, 6)
    clear = payload(AllBlocksCleared())
    assert core.apply_many("a", [clear, clear, clear], budget=10).payloads == 1, "what it cleared is work"
    assert core.apply_many("a", [], budget=1).payloads == 0


def test_errors_name_the_payload_within_a_budget(kind):
    core = new_core(kind, limits=CoreLimits(max_blocks=1))
    with pytest.raises(LimitError, match="batch 2 of 2"):
        core.apply_many("a", [payload(stored([1], [1], size=1)), payload(stored([2], [2], size=1))], budget=100)


@pytest.mark.parametrize("kind", KINDS)
def test_seeds_are_random_and_travel_with_snapshots(kind):
    first, second = (make_core(kind) for _ in range(2))
    asked = (Context("m"), PROMPT, 4)
    assert first.query_keys(*asked) != second.query_keys(*asked)
    first.add_publisher("a", "m")
    put(first, stored([1, 2], PROMPT[:8]))
    second.restore(first.snapshot())
    assert first.query_keys(*asked) == second.query_keys(*asked)
    assert matched(second, PROMPT) == {"a": 2}


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_media_are_released(kind):
    """More names than 16 bits can number, one after the other, and then another publisher's removal."""
    core = new_core(kind, "a", "b")
    for at in range(1100):
        put(core, *(stored([1], [], size=0, medium=f"M{at}-{slot}") for slot in range(64)))
        core.clear_publisher("a")
    put(core, stored([1], PROMPT[:4], medium="NEW"), publisher="b")
    assert [row.medium for row in core.dump("b")] == ["NEW"]
    put(core, removed(1, medium="NEW"), publisher="b")
    assert core.stats("b").blocks == 0
