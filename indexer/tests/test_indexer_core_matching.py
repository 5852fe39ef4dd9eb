"""Matches in every installed core: prefixes, forms of tokens, and contexts."""

from array import array

import pytest
from index_core_helpers import PROMPT, hashes, matched, new_core, put, removed, stored

from kvsync_indexer.core import (
    Applied,
    Context,
    CoreLimits,
    IndexCore,
    Match,
    QueryError,
)

# -- matching ----------------------------------------------------------------------------------------------------------


def test_the_core_says_what_it_is(core, kind):
    assert core.name == kind
    assert isinstance(core, IndexCore)


def test_a_match_is_the_contiguous_prefix(core):
    applied = put(core, stored([1, 2, 3, 4], PROMPT))
    assert applied == Applied(payloads=1, events=1, stored=4)
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


def test_the_largest_block_size_of_a_group_counts(core):
    put(core, stored([1], PROMPT[:4]))
    assert core.match(Context("m"), PROMPT)[0][1:4] == (1, 4, 4)
    put(core, stored([11, 12], PROMPT, size=8))
    assert core.match(Context("m"), PROMPT)[0][1:4] == (2, 16, 8)
    put(core, removed(11))
    assert matched(core, PROMPT) == {}


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


# -- contexts ----------------------------------------------------------------------------------------------------------


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


def test_extra_keys_that_are_maps_are_opaque(core):
    """Their entries count, in any order; nothing is known of their meaning."""
    first = {"kind": "image", "hash": [1, {"x": None}], b"k": 1.5}
    other_order = dict(reversed(first.items()))
    put(core, stored([1, 2], PROMPT[:8], extra_keys=[({"a": 1},), (first, ["i", {"b": 2}])]))
    assert matched(core, PROMPT) == {}
    asked = (({"a": 1},), (other_order, ("i", {"b": 2})))
    assert matched(core, PROMPT, extra_keys=asked) == {"a": 2}
    assert matched(core, PROMPT, extra_keys=(({"a": 1},), (first, ("i", {"b": 3})))) == {"a": 1}
    assert matched(core, PROMPT, extra_keys=(({"a": 2},),)) == {}


def _nested(depth):
    return {"a": _nested(depth - 1)} if depth else 1


@pytest.mark.parametrize("part", [object(), {1: 1}, {"a": object()}, _nested(500), 1 << 200, "\ud800"])
def test_a_key_that_identifies_nothing_is_refused(core, part):
    put(core, stored([1], PROMPT[:4]))
    with pytest.raises(QueryError):
        core.match(Context("m", extra_keys=((part,),)), PROMPT)


def test_kinds_of_keys_do_not_mix(core):
    put(core, stored([1], PROMPT[:4], extra_keys=[(1,)]))
    for other in (True, 1.0, b"1", (1,), None):
        assert matched(core, PROMPT, extra_keys=((other,),)) == {}
    assert matched(core, PROMPT, extra_keys=((1,),)) == {"a": 1}
