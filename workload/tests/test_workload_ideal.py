"""The unlimited cache, against its definition spelled out on tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync_workload.ideal import compute_ideal
from kvsync_workload.prefixes import PrefixTree
from kvsync_workload.prompts import make_prompts
from kvsync_workload.trace import TraceRequest


def by_definition(requests, block_size, scale):
    """Hits per request and distinct blocks, from a set of whole token prefixes."""
    seen, hits = set(), []
    for prompt in make_prompts(requests, scale):
        tokens = tuple(prompt.token_ids)
        prefixes = [tokens[:end] for end in range(block_size, len(tokens) + 1, block_size)]
        run = 0
        while run < min(len(prefixes), (len(tokens) - 1) // block_size) and prefixes[run] in seen:
            run += 1
        hits.append(run * block_size)
        seen.update(prefixes)
    return hits, len(seen)


@st.composite
def traces(draw):
    """Few ids, so that prefixes are shared, and ids that follow several prefixes."""
    requests = []
    for ids in draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=1, max_size=15)):
        last = draw(st.sampled_from([1, 2, 16, 300, 511, 512]))
        requests.append(TraceRequest(0.0, 512 * (len(ids) - 1) + last, 1, tuple(ids)))
    return requests


@settings(deadline=None, max_examples=60)
@given(traces(), st.sampled_from([16, 24, 100, 512, 1024]))
def test_the_ideal_equals_its_definition(requests, block_size):
    ideal = compute_ideal(requests, block_size)
    assert (list(ideal.hit_tokens), ideal.distinct_blocks) == by_definition(requests, block_size, 1)


@settings(deadline=None, max_examples=60)
@given(traces(), st.sampled_from([4, 16, 24]), st.sampled_from([8, 32, 128]))
def test_the_ideal_of_a_scaled_trace_equals_its_definition(requests, block_size, scale):
    ideal = compute_ideal(requests, block_size, scale)
    assert (list(ideal.hit_tokens), ideal.distinct_blocks) == by_definition(requests, block_size, scale)
    assert ideal.prompt_tokens == tuple(max(request.input_tokens // scale, 1) for request in requests)


def test_an_aligned_prompt_computes_its_last_block_again():
    requests = [TraceRequest(0.0, 512 * 3, 1, (1, 2, 3))] * 2
    ideal = compute_ideal(requests, 16, 32)
    assert ideal.hit_tokens == (0, 32)
    assert ideal.distinct_blocks == 3
    assert ideal.hit_ratio == pytest.approx(32 / 96)


@given(st.lists(st.lists(st.integers(0, 3), max_size=5), max_size=20))
def test_numbers_of_a_tree_identify_prefixes(id_lists):
    tree, numbers = PrefixTree(), {}
    for ids in id_lists:
        path = tree.path(ids)
        for end, number in enumerate(path, start=1):
            assert numbers.setdefault(number, tuple(ids[:end])) == tuple(ids[:end])
    assert len(numbers) == len(set(numbers.values()))
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
