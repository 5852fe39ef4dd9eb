"""A fast encoder for the canonical CBOR of a block, `[parent, [token, …], extra keys]`.

Hashing blocks is the hot path of the mock engine and of every offline replay. For a block of 16 tokens a general
encoder takes four times as long as this one, which caches the bytes of each token id. Extra keys are rare and are
encoded by cbor2. Canonical means the shortest form and definite lengths (RFC 8949, section 4.2.1).
"""

from collections.abc import Sequence
from typing import Any, Final

import cbor2

_MAX_CACHED: Final = 262_144
"""Token ids whose bytes are cached: more than any current vocabulary, and about 30 MB when the cache is full."""
_NULL: Final = b"\xf6"
_TRIPLE: Final = b"\x83"


def encode_value(value: object) -> bytes:
    """Return the canonical CBOR of any value that can be part of a hash."""
    return bytes(cbor2.dumps(value, canonical=True))


class _Integers(dict[int, bytes]):
    """Maps an integer to its CBOR bytes, and caches them on first use."""

    def __missing__(self, number: int) -> bytes:
        encoded = encode_value(int(number))
        if len(self) < _MAX_CACHED:
            self[number] = encoded
        return encoded


def _head(major: int, length: int) -> bytes:
    """Return the head of a byte string (major 2) or an array (major 4).

    A head is the encoding of the length as an unsigned integer, with another major type.
    """
    encoded = encode_value(length)
    return bytes((encoded[0] | major << 5,)) + encoded[1:]


class _Heads(dict[int, bytes]):
    """Maps a length to its head for one major type. There are few lengths: that of a digest and that of a block."""

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
    """Return the bytes that vLLM hashes for one block."""
    tokens = b"".join(map(_integer, token_ids))
    extra = _NULL if extra_keys is None else encode_value(extra_keys)
    return _TRIPLE + _bytes_head(len(parent)) + parent + _array_head(len(token_ids)) + tokens + extra
