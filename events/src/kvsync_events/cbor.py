"""Canonical CBOR of `[parent, [token…], extra]`, and of nothing else, quickly.

Hashing blocks is the hot path of the mock engine and of every offline replay. A general encoder spends four times as
long on a block of 16 tokens as this one, which keeps the bytes of each token id it has met; the rare extra keys go
through cbor2. RFC 8949, section 4.2.1: shortest form, definite lengths.
"""

from collections.abc import Sequence
from typing import Any, Final

import cbor2

_MAX_CACHED: Final = 262_144
"""Token ids whose bytes are kept: more than any vocabulary of today, about 30 MB if all are met."""
_NULL: Final = b"\xf6"
_TRIPLE: Final = b"\x83"


def encode_value(value: object) -> bytes:
    """Canonical CBOR of any value of the kinds that are hashed."""
    return bytes(cbor2.dumps(value, canonical=True))


class _Integers(dict[int, bytes]):
    """Integer -> its CBOR bytes, filled as they are met."""

    def __missing__(self, number: int) -> bytes:
        encoded = encode_value(int(number))
        if len(self) < _MAX_CACHED:
            self[number] = encoded
        return encoded


def _head(major: int, length: int) -> bytes:
    """The head of a byte string (major 2) or an array (major 4): an unsigned integer's, with another major type."""
    encoded = encode_value(length)
    return bytes((encoded[0] | major << 5,)) + encoded[1:]


class _Heads(dict[int, bytes]):
    """Length -> head, for one major type; digests have one length and blocks another, so there are few."""

    def __init__(self, major: int) -> None:
        super().__init__()
        self._major = major

    def __missing__(self, length: int) -> bytes:
        head = _head(self._major, length)
        if len(self) < 1024:
            self[length] = head
        return head


_integer: Final = _Integers().__getitem__
_bytes_head: Final = _Heads(2).__getitem__
_array_head: Final = _Heads(4).__getitem__


def encode_block(parent: bytes, token_ids: Sequence[int], extra_keys: tuple[Any, ...] | None) -> bytes:
    """The bytes that are hashed for one block."""
    tokens = b"".join(map(_integer, token_ids))
    extra = _NULL if extra_keys is None else encode_value(extra_keys)
    return _TRIPLE + _bytes_head(len(parent)) + parent + _array_head(len(token_ids)) + tokens + extra
