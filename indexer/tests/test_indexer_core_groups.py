"""Cache groups of hybrid models, and events that leave something uncertain, in every installed core."""

import pytest
from index_core_helpers import FULL, PROMPT, WINDOW, hashes, matched, put, removed, stored

from kvsync_events import SetDigest
from kvsync_indexer.core import (
    Applied,
    Context,
    Match,
)

# -- hybrid models -----------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind_of_group", ["mamba", "kda", "cross_attention", "something new"])
def test_recurrent_groups_need_the_block_at_the_end(core, kind_of_group):
    """Groups that are not understood are treated like recurrent ones."""
    state = {"group_idx": 2, "kv_cache_spec_kind": kind_of_group}
    put(core, stored([1, 2, 3, 4], PROMPT, **FULL), stored([2], PROMPT[:8], **state))
    assert matched(core, PROMPT) == matched(core, PROMPT[:12]) == {"a": 2}
    assert matched(core, PROMPT[:4]) == {}
    put(core, stored([4], PROMPT[8:], parent=2, **state))
    assert matched(core, PROMPT) == {"a": 4}
    put(core, removed(2, group_idx=2))
    assert matched(core, PROMPT) == {"a": 4}
    assert matched(core, PROMPT[:12]) == {}
    put(core, removed(3, group_idx=0))
    assert matched(core, PROMPT) == {}


def test_the_cache_mode_align_of_recurrent_models(core):
    """vLLM stores the state of a prompt at the ends of its chunks only (here: of four blocks)."""
    tokens = list(range(32))
    state = {"group_idx": 1, "kv_cache_spec_kind": "mamba"}
    put(core, stored(list(range(1, 9)), tokens, **FULL))
    put(core, stored([4], tokens[:16], **state), stored([8], tokens[16:], parent=4, **state))
    assert [matched(core, tokens[: 4 * blocks]).get("a", 0) for blocks in range(1, 9)] == [0, 0, 0, 4, 4, 4, 4, 8]


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
    assert put(core, stored([], PROMPT, **WINDOW)) == Applied(payloads=1, events=1)
    put(core, stored([1], PROMPT[:4], **FULL))
    assert matched(core, PROMPT) == {}, "the window group is known and holds nothing"


def test_offload_without_a_group_belongs_to_the_only_group(core):
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([1, 2], [], size=0, medium="CPU"), removed(1, 2, group_idx=0))
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 8, 4, {"CPU": 2})]
    put(core, stored([], PROMPT, **WINDOW))
    assert matched(core, PROMPT) == {}, "with two groups, the owner of those blocks is unknown"


def test_groups_have_digests_of_their_own(core):
    put(core, stored([1, 2], PROMPT[:8], **FULL), stored([2], PROMPT[4:8], parent=1, **WINDOW))
    rows = [(row.medium, row.group_idx, row.count, row.digest_hex) for row in core.digest("a")]
    assert rows == [("GPU", 0, 2, SetDigest([1, 2]).hex()), ("GPU", 1, 1, SetDigest([2]).hex())]


# -- events that leave something uncertain -----------------------------------------------------------------------------


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
