"""Cache groups of different block sizes, in every installed core.

Engines such as vLLM give the block of a large size the hash of the small block at its end: groups share hashes.
"""

import random

import pytest
from index_core_helpers import (
    KINDS,
    PROMPT,
    Model,
    matched,
    new_core,
    payload,
    put,
    removed,
    stored,
)

from kvsync_indexer.core import Context, Match

LARGE = {"group_idx": 0, "kv_cache_spec_kind": "mla_attention"}
SMALL = {"group_idx": 1, "kv_cache_spec_kind": "sliding_window_mla", "kv_cache_spec_sliding_window": 5}
"""A window of two blocks of two tokens."""
STATE = {"group_idx": 2, "kv_cache_spec_kind": "mamba"}
ALL_SMALL = [1, 2, 3, 4, 5, 6, 7, 8]
ALL_LARGE = [4, 8]


def large(**fields):
    return stored(ALL_LARGE, PROMPT, None, 8, **LARGE, **fields)


def small(**fields):
    return stored(ALL_SMALL, PROMPT, None, 2, **SMALL, **fields)


def test_a_match_needs_every_group_whatever_its_block_size(core):
    put(core, large(), small())
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 16, 8, {"GPU": 2})]
    assert core.match(Context("m"), PROMPT[:15]) == [Match("a", 1, 8, 8, {"GPU": 1})]
    put(core, removed(8, group_idx=0))
    assert matched(core, PROMPT) == {"a": 1}
    put(core, removed(4, group_idx=0))
    assert matched(core, PROMPT) == {}


def test_the_window_of_the_small_blocks_counts(core):
    put(core, large(), small(), removed(1, 2, 5, 6, group_idx=1))
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(7, group_idx=1))
    assert matched(core, PROMPT) == {"a": 1}
    put(core, removed(4, group_idx=1))
    assert matched(core, PROMPT) == {}


def test_masked_small_blocks_are_found_by_the_hashes_of_large_ones(core):
    put(core, large(), stored([3, 4, 7, 8], PROMPT, None, 2, **SMALL))
    assert core.stats("a").orphans == 0
    assert matched(core, PROMPT) == {"a": 2}
    put(core, removed(3, group_idx=1))
    assert matched(core, PROMPT) == {"a": 2}
    assert matched(core, PROMPT[:8]) == {}


def test_masked_blocks_that_come_before_the_others_of_their_batch(core):
    put(core, stored([3, 4, 7, 8], PROMPT, None, 2, **SMALL), large())
    assert matched(core, PROMPT) == {"a": 2}


def test_masked_blocks_that_continue_a_chain(core):
    put(core, stored([4], PROMPT[:8], None, 8, **LARGE), stored([3, 4], PROMPT[:8], None, 2, **SMALL))
    put(core, stored([8], PROMPT[8:], 4, 8, **LARGE), stored([7, 8], PROMPT[8:], 4, 2, **SMALL))
    assert matched(core, PROMPT) == {"a": 2}


def test_masked_blocks_of_another_context_are_not_placed(core):
    """The salt of a chain whose first block is masked is not in the event; the other group's hash gives it away."""
    salted = [("s",), None]
    put(core, large(extra_keys=salted), stored([3, 4, 7, 8], PROMPT, None, 2, **SMALL))
    assert core.stats("a").orphans == 4
    put(core, stored([104, 108], PROMPT, None, 8, **LARGE))
    assert matched(core, PROMPT) == {}


def test_a_recurrent_group_of_larger_blocks(core):
    put(core, small(), stored([8], PROMPT, None, 8, **STATE))
    assert core.match(Context("m"), PROMPT) == [Match("a", 2, 16, 8, {"GPU": 1})]
    assert matched(core, PROMPT[:8]) == {}


def test_a_side_stream_of_smaller_blocks_is_no_substitute_and_no_obstacle(core):
    """The indexer cache of DeepSeek-V4 has the number of the full-attention group."""
    side = stored(ALL_SMALL, PROMPT, None, 2, **LARGE)
    for events in ([side, large(), small()], [large(), small(), side]):
        core.clear_publisher("a")
        put(core, *events)
        assert matched(core, PROMPT) == {"a": 2}
        put(core, removed(1, 2, 3, 5, 6, 7, group_idx=0))
        assert matched(core, PROMPT) == {"a": 2}
        put(core, removed(4, 8, group_idx=0))
        assert matched(core, PROMPT) == {}


def test_a_hash_is_in_a_slot_once_whatever_its_block_sizes(core):
    put(core, large(), stored(ALL_SMALL, PROMPT, None, 2, **LARGE))
    assert core.digest("a")[0].count == 8
    assert [row.hash for row in core.dump("a")] == ALL_SMALL
    put(core, removed(*ALL_SMALL, group_idx=0))
    assert core.stats("a").blocks == 0


def test_a_parent_of_another_block_size_leaves_an_orphan(core):
    applied = put(core, stored([4], PROMPT[:8], None, 8, **LARGE), stored([5], PROMPT[8:10], 4, 2, **LARGE))
    assert (applied.orphans, core.stats("a").orphans) == (1, 1)


def test_one_parent_hash_continues_the_chains_of_both_sizes(core):
    put(core, stored([4], PROMPT[:8], None, 8, **LARGE), stored([1, 2, 3, 4], PROMPT[:8], None, 2, **SMALL))
    put(core, stored([5, 6, 7, 8], PROMPT[8:], 4, 2, **SMALL), stored([8], PROMPT[8:], 4, 8, **LARGE))
    assert matched(core, PROMPT) == {"a": 2}


def test_sizes_that_share_no_multiple_within_a_prompt_match_nothing(core):
    put(core, stored([1], PROMPT[:15], None, 15, **LARGE), stored([2], PROMPT[:16], None, 16, **SMALL))
    assert matched(core, list(range(100, 1000))) == {}


def test_keys_of_one_size_do_not_match_publishers_with_several(core):
    put(core, large(), small())
    assert core.match_keys("m", 8, core.query_keys(Context("m"), PROMPT, 8)) == []


@pytest.mark.parametrize("too_many", ["groups", "sizes"])
def test_too_many_groups_match_nothing_and_are_reported(core, too_many):
    if too_many == "groups":
        events = [stored([1], PROMPT[:4], group_idx=at) for at in range(33)]
    else:
        events = [stored([1], PROMPT[: at + 1], None, at + 1, group_idx=at) for at in range(9)]
    put(core, *events[:-1])
    assert core.stats().too_many_groups == 0
    put(core, events[-1])
    assert core.stats().too_many_groups == core.stats("a").too_many_groups == 1
    assert matched(core, PROMPT) == {}
    core.clear_publisher("a")
    assert core.stats().too_many_groups == 0


# -- random traffic as an engine sends it ------------------------------------------------------------------------------


class Engine:
    """Hybrid groups that store chunks of prompts as vLLM does: the hash of a prefix is the same in every group."""

    def __init__(self, rng):
        self.rng = rng
        sizes = rng.choice([(2, 2), (4, 2), (2, 4), (4, 2, 8), (8, 4, 2), (6, 2), (4, 4, 2)])
        self.groups = [
            (
                size,
                {"group_idx": at, **rng.choice([SMALL_KIND, STATE_KIND] if at else [FULL_KIND, FULL_KIND, SMALL_KIND])},
            )
            for at, size in enumerate(sizes)
        ]
        self.held = set()

    def prompt(self):
        return tuple(self.rng.randrange(2) for _ in range(48))

    def store(self, prompt, start, end):
        """Events that store the tokens `start` to `end`; windows and states keep only some of their blocks."""
        events = []
        for size, fields in self.groups:
            ends = list(range(start + size, end + 1, size))
            kept = ends
            if fields["kv_cache_spec_kind"] == "mamba":
                kept = ends[-1:]
            elif fields["kv_cache_spec_kind"] == "sliding_window" and self.rng.random() < 0.7:
                kept = [one for one in ends if (one - 1) % 24 >= 24 - 2 * size]
            if not kept:
                continue
            hashes = [self.hash_of(prompt[:one]) for one in kept]
            self.held |= {(one, fields["group_idx"]) for one in hashes}
            parent = self.hash_of(prompt[:start]) if start else None
            events.append(stored(hashes, prompt[start : ends[-1]], parent, size, **fields))
        self.rng.shuffle(events)
        return events

    @staticmethod
    def hash_of(tokens):
        return hash(tokens) % 2**64

    def evict(self):
        one = self.rng.choice(sorted(self.held))
        self.held.discard(one)
        return removed(one[0], group_idx=one[1])


FULL_KIND = {"kv_cache_spec_kind": "full_attention"}
SMALL_KIND = {"kv_cache_spec_kind": "sliding_window", "kv_cache_spec_sliding_window": 5}
STATE_KIND = {"kv_cache_spec_kind": "mamba"}


@pytest.mark.parametrize("seed", range(12))
def test_hybrid_traffic(seed):
    """The cores agree with the plain model, and with each other byte for byte."""
    rng = random.Random(seed)
    engine, cores, model = Engine(rng), [new_core(kind, "a") for kind in KINDS], Model("m")
    prompts = [engine.prompt() for _ in range(3)]
    prompts += [prompts[0][:24] + engine.prompt()[:24]]
    matches = 0
    for _ in range(40):
        prompt = rng.choice(prompts)
        events = engine.store(prompt, *rng.choice([(0, 24), (24, 48), (0, 48)]))
        events += [engine.evict() for _ in range(rng.randrange(4)) if engine.held]
        if rng.random() < 0.2 and engine.held:
            one = rng.choice(sorted(engine.held))
            events.append(stored([one[0]], [], None, 0, medium="CPU", group_idx=one[1]))
        data = payload(*events)
        assert len({core.apply("a", data) for core in cores}) == 1
        model.apply(events)
        assert len({core.snapshot() for core in cores}) == 1
        for asked in prompts:
            expected = model.match(("m", None, None), list(asked))
            found = [list(core.match(Context("m"), list(asked))) for core in cores]
            assert all(one == found[0] for one in found)
            assert sum(one.tokens for one in found[0]) == expected
            matches += expected > 0
    assert matches > 5
