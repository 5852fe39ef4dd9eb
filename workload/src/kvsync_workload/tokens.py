"""The token ids of a trace block: a pure function of its id, the same for live and offline replay.

The id is mixed to 64 bits, which are cut into three digits of 22 bits. The block repeats these digits in turn, each
raised by `FIRST_TOKEN` and by the number of the repetition. Mixing and cutting lose nothing, so two blocks with
different ids differ within their first three tokens. All ids are above 65,535, so that nothing downstream may keep a
token in 16 bits, and below 2^31.
"""

import sys
from array import array
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from kvsync_workload.trace import TRACE_BLOCK_TOKENS

if TYPE_CHECKING:
    Tokens: TypeAlias = array[int]
else:
    Tokens = array

FIRST_TOKEN = 65_536
KEPT_BLOCKS = 4096
"""Blocks of 2 KiB whose tokens are cached."""

_DIGITS = 3
_DIGIT_BITS = 22
_DIGIT_MASK = (1 << _DIGIT_BITS) - 1
_PRIVATE_TOKENS = 1 << 23
"""Added to the tokens of ids from 2^64 on: above every token of the smaller ids."""
_MASK = (1 << 64) - 1
_LANES = range(TRACE_BLOCK_TOKENS)


def _pack(values: Iterable[int]) -> int:
    """One long number with a 32-bit lane per value: adding and multiplying it acts on all lanes at once."""
    return int.from_bytes(array("I", values).tobytes(), sys.byteorder)


_BASE = _pack(FIRST_TOKEN + lane // _DIGITS for lane in _LANES)
_PRIVATE_BASE = _pack(_PRIVATE_TOKENS + FIRST_TOKEN + lane // _DIGITS for lane in _LANES)
_PLACES = [_pack(int(lane % _DIGITS == place) for lane in _LANES) for place in range(_DIGITS)]


def mix64(value: int) -> int:
    """The splitmix64 finalizer (Steele, Lea and Flood 2014): a permutation of the 64-bit numbers."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


@lru_cache(maxsize=KEPT_BLOCKS)
def block_tokens(block_id: int) -> Tokens:
    """The 512 token ids of the block. The array is shared by all callers: copy it before changing it."""
    mixed = mix64(block_id & _MASK)
    packed = _BASE if block_id <= _MASK else _PRIVATE_BASE
    for number, place in enumerate(_PLACES):
        packed += place * (mixed >> number * _DIGIT_BITS & _DIGIT_MASK)
    tokens = array("I")
    tokens.frombytes(packed.to_bytes(4 * TRACE_BLOCK_TOKENS, sys.byteorder))
    return tokens
