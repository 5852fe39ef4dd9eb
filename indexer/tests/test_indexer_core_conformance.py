"""What every index core does, case by case; the same suite for each implementation that is installed."""

from array import array

import msgpack
import pytest
from index_core_helpers import KINDS, OLD_FORM, hashes, matched, new_core, payload, removed, stored

from kvsync_events import AllBlocksCleared, DecodeError, EventBatch, SetDigest
from kvsync_indexer.core import (
    Applied,
    Context,
    CoreLimits,
    IndexCore,
    LimitError,
    Match,
    PublisherConflictError,
    QueryError,
    SnapshotError,
    UnknownPublisherError,
    make_core,
)

PROMPT = list(range(100, 116))
"""Four blocks of four."""


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def core(kind):
    return new_core(kind, "a", "b", "x=other")


def put(core, *events, publisher="a", **kw):
    return core.apply(publisher, payload(*events, **kw))


# -- matching ---------------------------------------------------------------------------------------------------------


def test_the_core_says_what_it_is(core, kind):
    assert core.name == kind
    assert isinstance(core, IndexCore)


def test_a_match_is_the_contiguous_prefix(core):
    applied = put(core, stored([1, 2, 3, 4], PROMPT))
    assert applied == Applied(events=1, stored=4)
    (match,) = core.match(Context("m"), [*PROMPT[:12], 0, 0, 0, 0])
    assert match == Match("a", 3, 12, 4, {"GPU": 3})
    put(core, removed(2))
    assert matched(core, PROMPT) == {"a": 1}
    assert hashes(core) == {1, 3, 4}


def test_a_removed_block_that_comes_back_finds_its_descendants(core):
    put(core, stored([1, 2, 3, 4], PROMPT), removed(2))
    put(core, stored([2], PROMPT[4:8], parent=1))
    assert matched(core, PROMPT) == {"a": 4}


def test_tokens_short_of_a_block_do_not_count(core):
    put(core, stored([1, 2], PROMPT[:8]))
    assert matched(core, PROMPT[:7]) == {"a": 1}
    assert matched(core, PROMPT[:3]) == {}
    assert matched(core, []) == {}


def test_a_longer_query_never_matches_less(core):
    put(core, stored([1, 2, 3], PROMPT[:12]))
    lengths = [matched(core, PROMPT[:n]).get("a", 0) for n in range(17)]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 3


@pytest.mark.parametrize(
    "form",
    [
        lambda tokens: tokens,
        tuple,
        lambda tokens: array("I", tokens),
        lambda tokens: array("i", tokens),
        lambda tokens: array("I", tokens).tobytes(),
        lambda tokens: bytearray(array("I", tokens).tobytes()),
        lambda tokens: memoryview(array("I", tokens)),
        lambda tokens: memoryview(array("I", tokens).tobytes()),
    ],
)
def test_every_form_of_tokens(core, form):
    tokens = [5, 70_000, 4_294_967 * 200, 9] * 2
    put(core, stored([1, 2], tokens))
    assert core.match(Context("m"), form(tokens))[0].blocks == 2


@pytest.mark.parametrize("tokens", [[-1] * 4, [1 << 32] * 4, ["a"] * 4, b"abc", 7, array("d", [1.0]), array("H", [1])])
def test_what_is_no_token_list_is_refused(core, tokens):
    with pytest.raises(QueryError):
        core.match(Context("m"), tokens)


def test_query_over_the_limit_is_refused(kind):
    core = new_core(kind, limits=CoreLimits(max_query_tokens=8))
    core.match(Context("m"), [1] * 8)
    with pytest.raises(QueryError, match="limit of 8"):
        core.match(Context("m"), [1] * 9)


def test_best_first_and_ties_by_name(core):
    put(core, stored([1, 2], PROMPT[:8]), publisher="b")
    put(core, stored([1, 2], PROMPT[:8]), publisher="a")
    core.add_publisher("c", "m")
    put(core, stored([1, 2, 3], PROMPT[:12]), publisher="c")
    assert [one.publisher for one in core.match(Context("m"), PROMPT)] == ["c", "a", "b"]


def test_publishers_restrict_the_answer(core):
    put(core, stored([1], PROMPT[:4]), publisher="a")
    put(core, stored([1], PROMPT[:4]), publisher="b")
    assert matched(core, PROMPT, publishers=["b", "nobody", "x"]) == {"b": 1}
    assert matched(core, PROMPT, publishers=[]) == {}
    assert matched(core, PROMPT, publishers={"a", "b"}) == {"a": 1, "b": 1}


def test_the_answer_is_a_sequence(core):
    put(core, stored([1], PROMPT[:4]), publisher="a")
    put(core, stored([1], PROMPT[:4]), publisher="b")
    found = core.match(Context("m"), PROMPT)
    assert len(found) == 2
    assert found[0].publisher == found[-2].publisher == "a"
    assert [one.publisher for one in found[1:]] == ["b"]
    assert bool(found)
    assert not core.match(Context("m"), PROMPT[4:])
    assert core.match(Context("m"), PROMPT[4:]) == []
    with pytest.raises(IndexError):
        found[2]


def test_publishers_of_different_block_sizes(core):
    put(core, stored([1, 2, 3, 4], PROMPT))
    put(core, stored([1, 2], PROMPT, size=8), publisher="b")
    found = core.match(Context("m"), PROMPT[:12])
    assert [(one.publisher, one.tokens, one.block_size) for one in found] == [("a", 12, 4), ("b", 8, 8)]


def test_one_publisher_may_use_several_block_sizes(core):
    put(core, stored([1], PROMPT[:4]))
    put(core, stored([11, 12], PROMPT, size=8))
    assert core.match(Context("m"), PROMPT)[0][1:4] == (2, 16, 8)
    put(core, removed(11))
    assert core.match(Context("m"), PROMPT)[0][1:4] == (1, 4, 4)


def test_keys_may_be_computed_first(core):
    put(core, stored([1, 2, 3], PROMPT[:12]))
    put(core, stored([1], PROMPT[:4], extra_keys=[("s",)]), publisher="b")
    keys = core.query_keys(Context("m"), PROMPT, 4)
    assert len(keys) == 32
    assert core.match_keys("m", 4, keys) == core.match(Context("m"), PROMPT)
    assert core.match_keys("m", 4, keys[:8])[0].blocks == 1
    assert core.match_keys("m", 4, keys, ["b"]) == core.match_keys("other", 4, keys) == []
    assert core.match_keys("m", 8, keys) == core.match_keys("m", 4, b"") == []
    salted = core.query_keys(Context("m", extra_keys=(("s",),)), PROMPT, 4)
    assert salted == core.query_keys(Context("m", cache_salt="s"), PROMPT, 4)
    assert [one.publisher for one in core.match_keys("m", 4, salted)] == ["b"]
    with pytest.raises(QueryError):
        core.match_keys("m", 4, keys[:7])
    with pytest.raises(QueryError):
        core.query_keys(Context("m"), PROMPT, 0)


# -- contexts ---------------------------------------------------------------------------------------------------------


def test_models_are_apart(core):
    put(core, stored([1], PROMPT[:4]), publisher="a")
    put(core, stored([1], PROMPT[:4]), publisher="x")
    assert matched(core, PROMPT) == {"a": 1}
    assert matched(core, PROMPT, model="other") == {"x": 1}
    assert matched(core, PROMPT, model="third") == {}


def test_adapters_are_apart(core):
    put(core, stored([1], PROMPT[:4], lora_id=1, lora_name="poet", extra_keys=[("poet",)]))
    put(core, stored([2], PROMPT[:4], lora_id=7), publisher="b")
    assert matched(core, PROMPT) == {}
    assert matched(core, PROMPT, lora="poet") == {"a": 1}
    assert matched(core, PROMPT, lora="7") == {"b": 1}
    assert matched(core, PROMPT, lora="1") == {}


def test_salts_are_apart_and_reach_the_whole_chain(core):
    put(core, stored([1, 2], PROMPT[:8], extra_keys=[("pepper",), None]))
    put(core, stored([3], PROMPT[8:12], parent=2, extra_keys=[None]))
    assert matched(core, PROMPT) == {}
    assert matched(core, PROMPT, cache_salt="salt") == {}
    assert matched(core, PROMPT, cache_salt="pepper") == {"a": 3}


def test_an_adapter_and_a_salt_together(core):
    put(core, stored([1, 2], PROMPT[:8], lora_name="l", extra_keys=[("l", "s"), ("l",)]))
    assert matched(core, PROMPT, lora="l") == {}
    assert matched(core, PROMPT, cache_salt="s") == {}
    assert matched(core, PROMPT, lora="s", cache_salt="l") == {}
    assert matched(core, PROMPT, lora="l", cache_salt="s") == {"a": 2}


def test_a_salt_named_like_the_adapter(core):
    put(core, stored([1], PROMPT[:4], lora_name="l", extra_keys=[("l", "l")]))
    assert matched(core, PROMPT, lora="l") == {}
    assert matched(core, PROMPT, lora="l", cache_salt="l") == {"a": 1}


def test_multimodal_keys_are_part_of_the_block(core):
    keys = [None, (("image-1", -2),), (("image-1", -6), ("image-2", 1))]
    put(core, stored([1, 2, 3], PROMPT[:12], extra_keys=keys))
    assert matched(core, PROMPT) == {"a": 1}
    assert matched(core, PROMPT, extra_keys=(None, (("image-1", -2),))) == {"a": 2}
    assert matched(core, PROMPT, extra_keys=tuple(keys)) == {"a": 3}
    assert matched(core, PROMPT, extra_keys=(None, (("image-1", -3),))) == {"a": 1}
    assert matched(core, PROMPT, extra_keys=(*keys, None, None, None)) == {"a": 3}


def test_a_salt_may_come_in_the_extra_keys_of_the_query(core):
    put(core, stored([1], PROMPT[:4], extra_keys=[(("image", 0), "s", b"digest")]))
    assert matched(core, PROMPT, extra_keys=((("image", 0), "s", b"digest"),)) == {"a": 1}
    assert matched(core, PROMPT, cache_salt="s", extra_keys=((("image", 0), b"digest"),)) == {"a": 1}
    assert matched(core, PROMPT, extra_keys=((("image", 0), b"digest"),)) == {}


@pytest.mark.parametrize("part", [object(), {"a": 1}, 1 << 200, "\ud800"])
def test_a_key_that_identifies_nothing_is_refused(core, part):
    put(core, stored([1], PROMPT[:4]))
    with pytest.raises(QueryError):
        core.match(Context("m", extra_keys=((part,),)), PROMPT)


def test_kinds_of_keys_do_not_mix(core):
    put(core, stored([1], PROMPT[:4], extra_keys=[(1,)]))
    for other in (True, 1.0, b"1", (1,), None):
        assert matched(core, PROMPT, extra_keys=((other,),)) == {}
    assert matched(core, PROMPT, extra_keys=((1,),)) == {"a": 1}


# -- chains and orphans -----------------------------------------------------------------------------------------------


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


# -- offload tiers ----------------------------------------------------------------------------------------------------


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


# -- copies -----------------------------------------------------------------------------------------------------------


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
    assert put(core, removed(2)) == Applied(events=1, unknown_removed=1)


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
    assert put(core, removed(1, 2)) == Applied(events=1, unknown_removed=2)
    put(core, stored([1], PROMPT[:4]))
    assert put(core, removed(1, medium="CPU")).unknown_removed == 1
    assert put(core, removed(1, group_idx=3)).unknown_removed == 1
    assert matched(core, PROMPT) == {"a": 1}


def test_a_removal_touches_one_publisher_only(core):
    for name in ("a", "b"):
        put(core, stored([1], PROMPT[:4]), publisher=name)
    put(core, removed(1), publisher="b")
    assert matched(core, PROMPT) == {"a": 1}


# -- clears -----------------------------------------------------------------------------------------------------------


def test_a_clear_drops_everything_of_that_publisher(core):
    for name in ("a", "b"):
        put(core, stored([1, 2], PROMPT[:8]), stored([7], PROMPT[:4], parent=8), publisher=name)
    assert put(core, AllBlocksCleared()) == Applied(events=1, cleared=3)
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
    assert core.apply_batch("a", _batch(AllBlocksCleared("gpu"))).cleared == 2
    assert core.match(Context("m"), PROMPT) == [Match("a", 1, 4, 4, {"CPU": 1})]


def _batch(*events):
    return EventBatch(0.0, list(events))


# -- hybrid models ----------------------------------------------------------------------------------------------------

FULL = {"group_idx": 0, "kv_cache_spec_kind": "full_attention"}
WINDOW = {"group_idx": 1, "kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 5}


def test_a_window_group_needs_only_the_window_at_the_end(core):
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL), stored([1, 2, 3, 4], PROMPT, **WINDOW))
    assert matched(core, PROMPT) == {"a": 4}
    put(core, removed(1, 2, 3, group_idx=1))
    assert matched(core, PROMPT) == {"a": 4}
    put(core, removed(4, group_idx=1))
    assert matched(core, PROMPT) == {}


def test_a_match_ends_where_the_window_is_resident(core):
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL), stored([1, 2, 3, 4], PROMPT, **WINDOW), removed(3, 4, group_idx=1))
    assert matched(core, PROMPT) == {"a": 2}
    assert matched(core, PROMPT[:8]) == {"a": 2}
    assert matched(core, PROMPT[:4]) == {"a": 1}


def test_a_window_of_several_blocks(core):
    wide = {**WINDOW, "kv_cache_spec_sliding_window": 9}
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL), stored([1, 2, 3, 4], PROMPT, **wide), removed(3, group_idx=1))
    assert matched(core, PROMPT) == {"a": 2}
    put(core, stored([3], PROMPT[8:12], parent=2, **wide), removed(1, 2, group_idx=1))
    assert matched(core, PROMPT) == {"a": 4}
    assert matched(core, PROMPT[:12]) == {}


def test_a_full_group_may_not_miss_a_block(core):
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([1, 2], PROMPT[:8], **WINDOW), removed(1, group_idx=0))
    assert matched(core, PROMPT) == {}


@pytest.mark.parametrize("kind_of_group", ["mla_attention", "sink_full_attention"])
def test_other_full_kinds_count_as_full(core, kind_of_group):
    both = {"group_idx": 1, "kv_cache_spec_kind": kind_of_group}
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([1], PROMPT[:4], **both))
    assert matched(core, PROMPT) == {"a": 1}


@pytest.mark.parametrize("kind_of_group", ["mamba", "cross_attention", "something new"])
def test_kinds_that_are_not_understood_are_kept_and_never_matched(core, kind_of_group):
    put(core, stored([1], PROMPT[:4], group_idx=2, kv_cache_spec_kind=kind_of_group))
    assert matched(core, PROMPT) == {}
    assert hashes(core) == {1}
    put(core, stored([1, 2], PROMPT[:8], **FULL))
    assert matched(core, PROMPT) == {"a": 2}


def test_a_window_without_its_size_is_full(core):
    bare = {"group_idx": 1, "kv_cache_spec_kind": "sliding_window"}
    put(core, stored([1, 2], PROMPT[:8], **bare), removed(1, group_idx=1))
    assert matched(core, PROMPT) == {}


def test_a_model_of_windows_only(core):
    put(core, stored([1, 2, 3, 4], PROMPT, **{**WINDOW, "group_idx": 0}), removed(1, 2, group_idx=0))
    assert core.match(Context("m"), PROMPT) == [Match("a", 4, 16, 4, {"GPU": 2})]
    assert matched(core, PROMPT[:8]) == {}


def test_masked_blocks_are_found_by_hash_only(core):
    sparse = stored([3, 4], PROMPT, **WINDOW)
    put(core, sparse)
    assert matched(core, PROMPT) == {}
    assert core.stats("a").orphans == 2
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL))
    assert core.stats("a").orphans == 0
    assert matched(core, PROMPT) == {"a": 4}
    assert {(row.hash, row.group_idx) for row in core.dump("a")} == {(1, 0), (2, 0), (3, 0), (4, 0), (3, 1), (4, 1)}


def test_an_event_may_store_nothing(core):
    assert put(core, stored([], PROMPT, **WINDOW)) == Applied(events=1)
    put(core, stored([1], PROMPT[:4], **FULL))
    assert matched(core, PROMPT) == {}, "the window group is known and holds nothing"


def test_offload_without_a_group_belongs_to_the_only_group(core):
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([1, 2], [], size=0, medium="CPU"), removed(1, 2, group_idx=0))
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 8, 4, {"CPU": 2})]
    put(core, stored([], PROMPT, **WINDOW))
    assert matched(core, PROMPT) == {}, "with two groups nobody knows whose blocks those are"


def test_groups_have_digests_of_their_own(core):
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([2], PROMPT[4:8], parent=1, **WINDOW))
    rows = [(row.medium, row.group_idx, row.count, row.digest_hex) for row in core.digest("a")]
    assert rows == [("GPU", 0, 2, SetDigest([1, 2]).hex()), ("GPU", 1, 1, SetDigest([2]).hex())]


# -- tokens that say less than they should ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        stored([1, 2], PROMPT[:7]),
        stored([1, 2], PROMPT[:12]),
        stored([1, 2], PROMPT[:8], extra_keys=[None]),
        stored([1, 2], [-1] * 8),
        stored([1, 2], PROMPT[:8], size=0),
    ],
    ids=["too few", "too many", "extra keys of another length", "no token ids", "no block size"],
)
def test_blocks_of_uncertain_content_are_resident_and_not_matched(core, event):
    put(core, event)
    assert hashes(core) == {1, 2}
    assert core.stats("a").orphans == 2
    assert matched(core, PROMPT) == {}


def test_tokens_after_the_last_block_are_ignored(core):
    put(core, stored([1, 2], PROMPT[:10]))
    assert matched(core, PROMPT) == {"a": 2}


# -- all or nothing ---------------------------------------------------------------------------------------------------


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
    assert applied == Applied(events=1, stored=1, unknown_events=1)
    assert matched(core, PROMPT) == {"a": 1}


def test_apply_many_adds_up_and_keeps_what_came_before_an_error(core):
    first, second = payload(stored([1], PROMPT[:4])), payload(stored([2], PROMPT[4:8], parent=1))
    assert core.apply_many("a", [first, second]) == Applied(events=2, stored=2)
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
    applied = core.apply_batch("a", _batch(stored([1, 2], PROMPT[:8]), removed(2)))
    assert applied == put(core, stored([1, 2], PROMPT[:8]), removed(2), publisher="b")
    assert [tuple(row) for row in core.dump("a")] == [tuple(row) for row in core.dump("b")]


# -- limits -----------------------------------------------------------------------------------------------------------


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


# -- publishers -------------------------------------------------------------------------------------------------------


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
        lambda core: core.apply_batch("nobody", _batch()),
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


# -- snapshots --------------------------------------------------------------------------------------------------------


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
