"""Token ids from block ids: distinct blocks, equal prefixes, scales, and lazy prompts as sequences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsync_workload.errors import SettingError
from kvsync_workload.prompts import PromptStream, PromptTokens, Scale, make_prompts, pack_tokens
from kvsync_workload.tokens import block_tokens, mix64
from kvsync_workload.trace import FIRST_PRIVATE_ID, MAX_HASH_ID, TraceRequest

BLOCK_IDS = st.integers(0, MAX_HASH_ID + 2**32)


def request(length, *hash_ids, output=1):
    return TraceRequest(0.0, length, output, hash_ids)


@given(BLOCK_IDS)
def test_tokens_of_a_block_fit_31_bits_and_not_16(block_id):
    tokens = block_tokens(block_id)
    assert len(tokens) == 512
    assert 65_535 < min(tokens) <= max(tokens) < 2**31


@given(BLOCK_IDS)
def test_three_tokens_of_a_block_determine_its_id(block_id):
    """The rule, inverted: what can be computed back from three tokens is different for different ids."""
    first, second, third = (token - 65_536 for token in block_tokens(block_id)[:3])
    private = block_id >= FIRST_PRIVATE_ID
    digits = [digit - (private << 23) for digit in (first, second, third)]
    assert all(0 <= digit < 2**22 for digit in digits)
    assert digits[0] | digits[1] << 22 | digits[2] << 44 == mix64(block_id % 2**64)


@given(st.integers(0, MAX_HASH_ID))
def test_mixing_loses_nothing(value):
    def unshift(value, by):
        found = value
        for _ in range(64 // by + 1):
            found = value ^ found >> by
        return found

    mixed = unshift(mix64(value), 31)
    mixed = unshift(mixed * pow(0x94D049BB133111EB, -1, 2**64) % 2**64, 27)
    mixed = unshift(mixed * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64, 30)
    assert (mixed - 0x9E3779B97F4A7C15) % 2**64 == value


def test_ids_that_agree_in_their_low_bits_are_different_blocks():
    ids = [1, 1 + 2**16, 1 + 2**31, 1 + 2**32, 1 + 2**63, 1 + 2**64]
    assert len({bytes(block_tokens(block_id)[:3]) for block_id in ids}) == len(ids)


def test_equal_ids_give_equal_prefixes_and_other_ids_other_tokens():
    first, second, third = make_prompts(
        [request(512 * 3, 1, 2, 3, output=64), request(512 * 2 + 100, 1, 2, 9), request(512 * 3, 4, 2, 3)], 32
    )
    assert (len(first.token_ids), len(second.token_ids)) == (48, 35)
    assert second.token_ids[:32] == first.token_ids[:32]
    assert second.token_ids[32:] != first.token_ids[32:35]
    assert third.token_ids[:16] != first.token_ids[:16]
    assert (first.output_tokens, second.output_tokens) == (2, 1)


def test_scales_nest_and_only_divisors_are_taken():
    full, scaled = PromptTokens(request(512, 7)), PromptTokens(request(512, 7), Scale(32))
    assert scaled[:] == full[:16]
    assert len(PromptTokens(request(3, 7), Scale(32))) == 1
    for divisor in (0, 3, 1024):
        with pytest.raises(SettingError, match=f"scale = {divisor}: allowed is a divisor of 512"):
            Scale(divisor)


@given(st.integers(1, 1500), st.sampled_from([1, 2, 32, 512]), st.data())
def test_lazy_tokens_are_a_sequence(length, divisor, data):
    ids = range(3, 3 + -(-length // 512))
    tokens = PromptTokens(request(length, *ids), Scale(divisor))
    whole = tokens[:]
    count = max(length // divisor, 1)
    assert len(whole) == len(tokens) == count
    bounds = st.integers(-count - 2, count + 2) | st.none()
    part = slice(data.draw(bounds), data.draw(bounds), data.draw(st.sampled_from([None, 1, 2, -1, -3])))
    assert tokens[part] == whole[part]
    at = data.draw(st.integers(-count, count - 1))
    assert tokens[at] == whole[at]
    assert pack_tokens(tokens).tolist() == pack_tokens(whole).tolist() == whole
    for outside in (count, -count - 1):
        with pytest.raises(IndexError):
            tokens[outside]


def test_a_stream_makes_the_same_prompts_in_every_iteration():
    requests = [request(700, 1, 2), request(700, 1, FIRST_PRIVATE_ID + 5)]
    stream = PromptStream(requests, 1, [0.5, 2.0])
    prompts = list(stream)
    assert prompts == list(stream)
    assert [(prompt.number, prompt.arrival_s) for prompt in prompts] == [(0, 0.5), (1, 2.0)]
    assert prompts[0].token_ids[:512] == prompts[1].token_ids[:512]
    assert prompts[0].token_ids[512:] != prompts[1].token_ids[512:]
