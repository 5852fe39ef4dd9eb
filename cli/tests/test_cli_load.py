"""Traces, prompts and the unlimited cache."""

import pytest
from cli_helpers import write_trace
from hypothesis import given, settings
from hypothesis import strategies as st

from kvsync.errors import TraceError, UsageProblemError
from kvsync.load.ideal import compute_ideal
from kvsync.load.prompts import PromptMaker, block_tokens, make_prompts
from kvsync.load.trace import TraceRequest, read_trace

GOOD = '{"timestamp": 5, "input_length": 700, "output_length": 3, "hash_ids": [1, 2]}\n'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "truncated"),
        ("[]", "object"),
        ('{"timestamp": 1, "input_length": 5, "output_length": 1}', "hash_ids"),
        ('{"timestamp": 1, "input_length": "x", "output_length": 1, "hash_ids": []}', "input_length"),
        ('{"timestamp": 1, "input_length": 0, "output_length": 1, "hash_ids": []}', "input_length = 0"),
        ('{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": []}', "timestamp = -1"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": [1.5]}', "hash_ids[0]"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path, line, says):
    path = tmp_path / "trace.jsonl"
    path.write_text(GOOD + "\n" + line + "\n")
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(read_trace(path, 1)) == 1


def test_missing_and_empty_traces_are_one_line(tmp_path):
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(TraceError, match="holds no request"):
        read_trace(tmp_path / "empty.jsonl")


def test_arrivals_begin_at_zero_and_never_fall(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(GOOD + GOOD.replace("5", "9", 1) + GOOD.replace("5", "7", 1))
    assert [request.timestamp_ms for request in read_trace(path)] == [0, 4, 4]


def test_equal_ids_give_equal_prefixes_and_other_ids_other_tokens():
    first, second, third = make_prompts(
        [
            TraceRequest(0, 512 * 3, 64, (1, 2, 3)),
            TraceRequest(0, 512 * 2 + 100, 0, (1, 2, 9)),
            TraceRequest(0, 512 * 3, 1, (4, 2, 3)),
        ],
        scale=32,
    )
    assert (len(first.token_ids), len(second.token_ids)) == (48, 35)
    assert second.token_ids[:32] == first.token_ids[:32]
    assert second.token_ids[32:] != first.token_ids[32:35]
    assert third.token_ids[:16] != first.token_ids[:16]
    assert (first.output_tokens, second.output_tokens) == (2, 1)
    assert min(first.token_ids) > 65_535


def test_an_input_longer_than_its_blocks_ends_in_tokens_of_its_own():
    requests = [TraceRequest(0, 512 * 4, 1, (1,)), TraceRequest(0, 512 * 4, 1, (1,))]
    first, second = make_prompts(requests, scale=32)
    assert len(first.token_ids) == 64
    assert first.token_ids[:16] == second.token_ids[:16]
    assert first.token_ids[16:32] != second.token_ids[16:32]


def test_scales_nest_and_only_divisors_are_taken():
    assert block_tokens(7, 16) == block_tokens(7, 512)[:16]
    with pytest.raises(UsageProblemError, match="scale = 3"):
        PromptMaker(3)


def test_ideal_counts_whole_blocks_up_to_the_last_token_but_one():
    requests = [TraceRequest(0, 512 * 3, 1, (1, 2, 3)), TraceRequest(0, 512 * 3, 1, (1, 2, 3))]
    ideal = compute_ideal(make_prompts(requests, 32), 16)
    assert ideal.hit_tokens == (0, 32)  # an aligned prompt computes its last block again
    assert ideal.distinct_blocks == 3
    assert ideal.hit_ratio == pytest.approx(32 / 96)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), min_size=1, max_size=20))
def test_ideal_equals_a_set_of_prefixes(id_lists):
    requests = [TraceRequest(0, 512 * len(ids), 1, tuple(ids)) for ids in id_lists]
    ideal = compute_ideal(make_prompts(requests, 32), 16)
    seen, expected = set(), []
    for ids in id_lists:
        prefixes = [tuple(ids[: end + 1]) for end in range(len(ids))]
        matched = next((count for count, prefix in enumerate(prefixes) if prefix not in seen), len(prefixes))
        expected.append(min(matched, len(ids) - 1) * 16)
        seen.update(prefixes)
    assert list(ideal.hit_tokens) == expected
    assert ideal.distinct_blocks == len(seen)


def test_the_helpers_trace_is_a_trace(tmp_path):
    assert len(read_trace(write_trace(tmp_path / "t.jsonl", requests=7))) == 7
