"""The meaning of the AIBrix-style calls, on every installed core."""

import struct
from array import array

import pytest
from index_core_helpers import KINDS

from kvsync_indexer.core import Context, PublisherConflictError, QueryError, UnknownPublisherError, make_core
from kvsync_indexer.library import PrefixIndex

PROMPT = [7, 70_000, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
"""Four blocks of four."""


@pytest.fixture(params=KINDS)
def index(request):
    return PrefixIndex(4, make_core(request.param))


def percent(index, tokens=PROMPT, pods=("a", "b"), model="m", lora=None):
    return index.match_prefix(model, lora, tokens, pods).percent


def test_shares_of_the_prompt_by_ready_pod(index):
    index.process_block_stored("a", "m", [1, 2, 3, 4], PROMPT)
    index.process_block_stored("b", "m", [1, 2], PROMPT[:8])
    assert percent(index) == {"a": 100, "b": 50}
    assert percent(index, pods=["b", "stranger"]) == {"b": 50}
    assert percent(index, pods=[]) == {}
    assert percent(index, [*PROMPT[:12], 0, 0, 0, 0]) == {"a": 75, "b": 50}
    assert percent(index, [*PROMPT, 0, 0]) == {"a": 100, "b": 50}, "a partial block does not count"


def test_an_event_of_several_blocks_matches_all_of_its_own_prompt(index):
    index.process_block_stored("a", "m", list(range(1, 9)), list(range(32)))
    assert percent(index, list(range(32))) == {"a": 100}


def test_chains_over_several_events(index):
    index.process_block_stored("a", "m", [1], PROMPT[:4])
    index.process_block_stored("a", "m", [2, 3], PROMPT[4:12], parent_block_hash=1)
    assert percent(index) == {"a": 75}


def test_a_removal_touches_one_pod_only(index):
    for pod in ("a", "b"):
        index.process_block_stored(pod, "m", [1, 2], PROMPT[:8])
    index.process_block_removed("a", [1])
    assert percent(index) == {"b": 50}
    with pytest.raises(UnknownPublisherError):
        index.process_block_removed("stranger", [1])


def test_a_match_is_contiguous(index):
    index.process_block_stored("a", "m", [1, 2, 3, 4], PROMPT)
    index.process_block_removed("a", [2])
    assert percent(index) == {"a": 25}


def test_clear_and_departure(index):
    for pod in ("a", "b"):
        index.process_block_stored(pod, "m", [1], PROMPT[:4])
    assert index.process_all_blocks_cleared("a").cleared == 1
    assert percent(index) == {"b": 25}
    assert index.remove_pod("b") == 1
    assert percent(index) == {}


def test_models_and_adapters_are_apart(index):
    index.process_block_stored("a", "m", [1], PROMPT[:4], lora_id=7)
    index.process_block_stored("b", "m", [1], PROMPT[:4], lora_id=-1)
    assert percent(index) == percent(index, lora=-1) == {"b": 25}
    assert percent(index, lora=7) == percent(index, lora="7") == {"a": 25}
    assert percent(index, model="other") == {}
    with pytest.raises(PublisherConflictError):
        index.process_block_stored("a", "other", [1], PROMPT[:4])


@pytest.mark.parametrize(
    "form",
    [
        lambda tokens: struct.pack(f">{len(tokens)}i", *tokens),
        lambda tokens: bytearray(struct.pack(f">{len(tokens)}I", *tokens)),
        lambda tokens: memoryview(struct.pack(f">{len(tokens)}I", *tokens)),
        lambda tokens: memoryview(array("i", tokens)),
        lambda tokens: array("i", tokens),
        tuple,
    ],
)
def test_every_form_of_tokens_is_the_same_prompt(index, form):
    index.process_block_stored("a", "m", [1, 2, 3, 4], form(PROMPT))
    assert percent(index) == percent(index, form(PROMPT)) == {"a": 100}
    assert index.get_prefix_hashes(form(PROMPT)) == index.get_prefix_hashes(PROMPT)


def test_tokens_may_come_as_bytes_per_block(index):
    data = struct.pack(">16i", *PROMPT)
    index.process_block_stored("a", "m", [1, 2, 3, 4], [data[at : at + 16] for at in range(0, 64, 16)])
    assert percent(index) == {"a": 100}


def test_negative_tokens_keep_their_bits(index):
    index.process_block_stored("a", "m", [1], [-1, -2, -3, -4])
    assert percent(index, struct.pack(">4i", -1, -2, -3, -4)) == {"a": 100}


@pytest.mark.parametrize("tokens", [b"abc", [1 << 32], ["x"], [1.5]])
def test_what_is_no_token_is_refused(index, tokens):
    with pytest.raises(QueryError):
        index.process_block_stored("a", "m", [1], tokens)
    with pytest.raises(QueryError):
        index.match_prefix("m", None, tokens, ["a"])


def test_prefix_hashes_cover_what_came_before(index):
    hashes = index.get_prefix_hashes(PROMPT)
    assert len(hashes) == len(set(hashes)) == 4
    assert index.get_prefix_hashes(PROMPT[:11]) == hashes[:2]
    changed = index.get_prefix_hashes([0, *PROMPT[1:]])
    assert not set(changed) & set(hashes)
    assert index.match_prefix("m", None, PROMPT, []).hashes == index.get_prefix_hashes(PROMPT, "m")
    assert index.get_prefix_hashes([]) == []


def test_the_core_answers_for_the_same_blocks(index):
    index.process_block_stored("a", "m", [1, 2], PROMPT[:8])
    assert index.core.match(Context("m"), PROMPT)[0].blocks == 2


def test_a_block_size_is_positive():
    with pytest.raises(ValueError, match="block_size"):
        PrefixIndex(0)


@pytest.mark.parametrize(
    "tokens",
    [
        PROMPT,
        [PROMPT[:4], PROMPT[4:8], PROMPT[8:12], PROMPT[12:]],
        (tuple(PROMPT[:4]), array("I", PROMPT[4:8]), struct.pack(">4I", *PROMPT[8:12]), PROMPT[12:]),
        [array("I", PROMPT[at : at + 4]) for at in range(0, 16, 4)],
    ],
)
def test_tokens_may_come_as_one_list_per_block(index, tokens):
    index.process_block_stored("a", "m", [1, 2, 3, 4], tokens)
    assert percent(index) == {"a": 100}
    assert percent(index, PROMPT[:8]) == {"a": 100}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([PROMPT[:4]], ["1 token lists", "2 block hashes"]),
        ([PROMPT[:4], PROMPT[4:8], PROMPT[8:12]], ["3 token lists", "2 block hashes"]),
        ([PROMPT[:4], PROMPT[4:7]], ["block 1", "3 tokens", "block size is 4"]),
        ([PROMPT[:4], 5], ["int"]),
        ([PROMPT[:4], "text"], ["str"]),
        ([[PROMPT[:4]], PROMPT[4:8]], ["32-bit integer"]),
    ],
)
def test_lists_that_do_not_fill_the_blocks_are_refused_and_leave_no_pod(index, tokens, words):
    with pytest.raises(QueryError) as caught:
        index.process_block_stored("a", "m", [1, 2], tokens)
    for word in words:
        assert word in str(caught.value)
    with pytest.raises(UnknownPublisherError):
        index.process_block_removed("a", [1])
