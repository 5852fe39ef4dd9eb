"""How stored blocks get their content, in every installed core: parents, orphans, offload tiers, copies and clears."""

import msgpack
from index_core_helpers import OLD_FORM, PROMPT, batch, hashes, matched, new_core, put, removed, stored

from kvsync_events import AllBlocksCleared, SetDigest
from kvsync_indexer.core import (
    Applied,
    Context,
    CoreLimits,
    Match,
)

# -- chains and orphans ------------------------------------------------------------------------------------------------


def test_parents_are_found_by_engine_hash_of_the_same_publisher(core):
    put(core, stored([1], PROMPT[:4]))
    put(core, stored([2], PROMPT[4:8], parent=1), publisher="b")
    assert matched(core, PROMPT) == {"a": 1}
    assert core.stats("b").orphans == 1
    put(core, stored([2], PROMPT[4:8], parent=1))
    assert matched(core, PROMPT) == {"a": 2}


def test_an_orphan_counts_as_resident_and_matches_when_its_parent_appears(core):
    applied = put(core, stored([3, 4], PROMPT[8:], parent=2))
    assert (applied.stored, applied.orphans) == (2, 2)
    assert matched(core, PROMPT[8:]) == matched(core, PROMPT) == {}
    assert [(row.hash, row.parent, row.attached) for row in core.dump("a")] == [(3, 2, False), (4, 3, False)]
    assert core.digest("a")[0].digest_hex == SetDigest([3, 4]).hex()
    applied = put(core, stored([2], PROMPT[4:8], parent=1))
    assert (applied.orphans, applied.attached) == (1, 0)
    applied = put(core, stored([1], PROMPT[:4]))
    assert (applied.orphans, applied.attached) == (0, 3)
    assert matched(core, PROMPT) == {"a": 4}
    assert core.stats("a").orphans == 0
    assert [(row.parent, row.attached) for row in core.dump("a")] == [(None, True), (1, True), (2, True), (3, True)]


def test_an_orphan_that_was_removed_does_not_come_back(core):
    put(core, stored([2, 3], PROMPT[4:12], parent=1), removed(2))
    put(core, stored([1], PROMPT[:4]))
    assert matched(core, PROMPT) == {"a": 1}
    assert core.stats("a").orphans == 1
    put(core, stored([2], PROMPT[4:8], parent=1))
    assert matched(core, PROMPT) == {"a": 3}


def test_orphans_that_wait_for_each_other(core):
    put(core, stored([1], PROMPT[4:8], parent=2), stored([2], PROMPT[:4], parent=1), stored([7], PROMPT[:4], parent=7))
    assert matched(core, PROMPT) == {}
    put(core, stored([2], PROMPT[:4]))
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(1, 2, 2, 7))
    assert hashes(core) == set()
    assert core.stats("a").orphans == 0


def test_bytes_hashes(core):
    one, two = b"\x01" * 32, b"\x02" * 32
    core.apply("a", msgpack.packb([1.0, [["BlockStored", [one, two], None, PROMPT[:8], 4, None]]]))
    assert matched(core, PROMPT) == {"a": 2}
    assert [(row.hash, row.parent) for row in core.dump("a")] == [(one, None), (two, one)]
    core.apply("a", msgpack.packb([1.0, [["BlockRemoved", [one]]]]))
    assert [(row.hash, row.parent) for row in core.dump("a")] == [(two, None)]


def test_signed_hashes_are_the_same_as_unsigned(core):
    core.apply("a", msgpack.packb([1.0, [["BlockStored", [-5], None, PROMPT[:4], 4, None]]]))
    assert hashes(core) == {2**64 - 5}
    put(core, removed(2**64 - 5))
    assert hashes(core) == set()


def test_array_events_of_older_versions(core):
    put(core, stored([1, 2], PROMPT[:8]), removed(2), form=OLD_FORM)
    assert matched(core, PROMPT) == {"a": 1}


def test_the_first_content_of_a_hash_stays(core):
    put(core, stored([1, 2], PROMPT[:8]))
    put(core, stored([5], PROMPT[:4]), stored([2], PROMPT[8:12], parent=5))
    assert matched(core, PROMPT) == {"a": 2}
    assert matched(core, [*PROMPT[:4], *PROMPT[8:12]]) == {"a": 1}
    assert core.stats("a").conflicts == 1


def test_two_hashes_of_the_same_content(core):
    put(core, stored([1], PROMPT[:4]), stored([9], PROMPT[:4]), removed(1))
    assert matched(core, PROMPT) == {"a": 1}
    put(core, removed(9))
    assert matched(core, PROMPT) == {}


# -- offload tiers -----------------------------------------------------------------------------------------------------


def test_tiers_are_reported_nearest_first(core):
    put(core, stored([1, 2, 3], PROMPT[:12]), stored([2, 3], [], size=0, medium="CPU"), removed(2))
    (match,) = core.match(Context("m"), PROMPT)
    assert match.blocks == 3
    assert list(match.tiers.items()) == [("GPU", 2), ("CPU", 1)]
    put(core, removed(1), stored([1], PROMPT[:4], medium="storage"))
    assert core.match(Context("m"), PROMPT)[0].tiers == {"GPU": 1, "CPU": 1, "STORAGE": 1}
    assert list(core.match(Context("m"), PROMPT)[0].tiers) == ["GPU", "CPU", "STORAGE"]


def test_offload_without_tokens_waits_for_its_chain(core):
    applied = put(core, stored([2, 1], [], size=0, medium="CPU"))
    assert (applied.stored, applied.orphans) == (2, 2)
    assert matched(core, PROMPT) == {}
    applied = put(core, stored([1, 2], PROMPT[:8]))
    assert applied.attached == 2
    put(core, removed(1, 2))
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 8, 4, {"CPU": 2})]
    put(core, removed(1, medium="CPU"))
    assert matched(core, PROMPT) == {}


def test_offload_of_one_publisher_does_not_attach_to_another(core):
    put(core, stored([1], PROMPT[:4]))
    put(core, stored([1], [], size=0, medium="CPU"), publisher="b")
    assert matched(core, PROMPT) == {"a": 1}


def test_a_waiting_offload_block_learns_its_parent_first(core):
    put(core, stored([2], [], size=0, medium="CPU"), stored([2], PROMPT[4:8], parent=1))
    assert core.stats("a").orphans == 1
    assert put(core, stored([1], PROMPT[:4])).attached == 1
    assert matched(core, PROMPT) == {"a": 2}


# -- copies ------------------------------------------------------------------------------------------------------------


def copies(core, hashed, publisher="a"):
    return next((row.copies for row in core.dump(publisher) if row.hash == hashed), 0)


def test_a_block_stored_twice_is_removed_twice(core):
    put(core, stored([1, 2], PROMPT[:8]), stored([2], PROMPT[4:8], parent=1))
    assert copies(core, 2) == 2
    assert core.digest("a")[0].count == 2
    put(core, removed(2))
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(2))
    assert matched(core, PROMPT) == {"a": 1}
    assert put(core, removed(2)) == Applied(payloads=1, events=1, unknown_removed=1)


def test_a_report_of_a_resident_chain_adds_no_copies(core):
    put(core, stored([1, 2, 3], PROMPT[:12]))
    put(core, stored([1, 2, 3], PROMPT[:12]), stored([4], PROMPT[12:], parent=3))
    assert [copies(core, one) for one in (1, 2, 3, 4)] == [1, 1, 1, 1]


def test_a_report_of_a_chain_known_in_part_adds_what_is_missing(core):
    put(core, stored([1], PROMPT[:4]), stored([1, 2], PROMPT[:8]))
    assert [copies(core, one) for one in (1, 2)] == [1, 1]
    assert matched(core, PROMPT) == {"a": 2}


def test_a_prompt_of_one_block_computed_again_is_a_copy(core):
    put(core, stored([1], PROMPT[:4]))
    put(core, stored([1], PROMPT[:4]))
    assert copies(core, 1) == 2


def test_a_report_of_one_block_is_seen_by_what_follows_it(core):
    put(core, stored([1], PROMPT[:4]))
    put(core, stored([1], PROMPT[:4]), stored([2], PROMPT[4:8], parent=1))
    assert copies(core, 1) == 1
    put(core, stored([1], PROMPT[:4]), removed(1), stored([3], PROMPT[8:12], parent=1))
    assert copies(core, 1) == 1


def test_offload_tiers_hold_a_hash_once(core):
    put(core, stored([1], PROMPT[:4]), stored([1], [], size=0, medium="CPU"), stored([1], [], size=0, medium="CPU"))
    put(core, removed(1), removed(1, medium="CPU"))
    assert hashes(core) == set()


def test_removal_of_what_is_not_there_is_counted(core):
    assert put(core, removed(1, 2)) == Applied(payloads=1, events=1, unknown_removed=2)
    put(core, stored([1], PROMPT[:4]))
    assert put(core, removed(1, medium="CPU")).unknown_removed == 1
    assert put(core, removed(1, group_idx=3)).unknown_removed == 1
    assert matched(core, PROMPT) == {"a": 1}


def test_a_removal_touches_one_publisher_only(core):
    for name in ("a", "b"):
        put(core, stored([1], PROMPT[:4]), publisher=name)
    put(core, removed(1), publisher="b")
    assert matched(core, PROMPT) == {"a": 1}


# -- clears ------------------------------------------------------------------------------------------------------------


def test_a_clear_drops_everything_of_that_publisher(core):
    for name in ("a", "b"):
        put(core, stored([1, 2], PROMPT[:8]), stored([7], PROMPT[:4], parent=8), publisher=name)
    assert put(core, AllBlocksCleared()) == Applied(payloads=1, events=1, cleared=3)
    assert matched(core, PROMPT) == {"b": 2}
    assert list(core.dump("a")) == []
    assert core.digest("a") == []
    assert core.stats("a").blocks == core.stats("a").orphans == 0
    put(core, stored([2], PROMPT[4:8], parent=1))
    assert matched(core, PROMPT) == {"b": 2}


def test_a_block_stored_after_the_clear_stays(core):
    put(core, stored([1, 2], PROMPT[:8]), AllBlocksCleared(), stored([1], PROMPT[:4]))
    assert matched(core, PROMPT) == {"a": 1}


def test_a_clear_of_one_tier(core):
    put(core, stored([1, 2], PROMPT[:8]), stored([1], [], size=0, medium="CPU"))
    assert core.apply_batch("a", batch(AllBlocksCleared("gpu"))).cleared == 2
    assert core.match(Context("m"), PROMPT) == [Match("a", 1, 4, 4, {"CPU": 1})]


# -- hashes that come back without tokens ------------------------------------------------------------------------------


def offloaded(*hashes, medium="CPU"):
    return stored(hashes, [], size=0, medium=medium)


def test_a_hash_is_understood_after_the_device_dropped_it(core):
    put(core, stored([1, 2, 3], PROMPT[:12]), removed(1, 2, 3))
    applied = put(core, offloaded(1, 2))
    assert (applied.stored, applied.orphans) == (2, 0)
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 8, 4, {"CPU": 2})]
    put(core, removed(2, medium="CPU"), offloaded(2, 3, medium="STORAGE"))
    assert core.match(Context("m"), PROMPT) == [Match("a", 3, 12, 4, {"CPU": 1, "STORAGE": 2})]
    assert [(row.hash, row.parent) for row in core.dump("a")] == [(1, None), (2, 1), (3, 2)]


def test_what_comes_back_attaches_those_that_wait_for_it(core):
    put(core, stored([1, 2], PROMPT[:8]), removed(1, 2), stored([3], PROMPT[8:12], parent=2))
    assert put(core, offloaded(1, 2)).attached == 1
    assert matched(core, PROMPT) == {"a": 3}


def test_only_the_latest_removals_are_remembered(kind):
    core = new_core(kind, limits=CoreLimits(max_remembered=2))
    put(core, stored([1, 2, 3], PROMPT[:12]), removed(3, 1, 2))
    put(core, offloaded(1, 2, 3))
    assert core.stats("a").orphans == 1
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(1, medium="CPU"), removed(1, 2, 3, medium="CPU"), offloaded(1))
    assert matched(core, PROMPT) == {"a": 1}
    core.clear_publisher("a")
    put(core, offloaded(2))
    assert core.stats("a").orphans == 1


def test_chunks_outside_of_the_device_that_share_blocks(core):
    """Each chunk is announced and removed with all of its blocks."""
    put(core, stored([1, 2, 3], PROMPT[:12]), offloaded(1, 2), offloaded(2, 3), removed(1, 2, 3))
    put(core, removed(1, 2, medium="CPU"))
    assert {row.hash for row in core.dump("a")} == {2, 3}
    put(core, offloaded(1))
    assert matched(core, PROMPT) == {"a": 3}
    put(core, removed(2, 3, medium="CPU"))
    assert {row.hash for row in core.dump("a")} == {1}


def test_chunks_with_tokens_that_share_blocks(core):
    put(core, stored([1, 2], PROMPT[:8], medium="CPU"), stored([1, 2, 3], PROMPT[:12], medium="CPU"))
    put(core, removed(1, 2, 3, medium="CPU"))
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(1, 2, medium="CPU"))
    assert matched(core, PROMPT) == {}


def test_a_repeated_announcement_of_a_hash_adds_no_copy(core):
    put(core, stored([1], PROMPT[:4]), offloaded(1), offloaded(1), removed(1), removed(1, medium="CPU"))
    assert matched(core, PROMPT) == {}
