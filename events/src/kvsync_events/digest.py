"""The order-independent digest of a set of block hashes.

An engine and an index both maintain the digest while blocks come and go, which costs a few integer operations per
change. To find out whether they agree, they compare 32 hex digits instead of two full dumps. The digest describes a
set, so that further copies of a block do not change it.
"""

from typing import Final

from kvsync_events.types import Hash

_MASK_64: Final = (1 << 64) - 1
_MASK_128: Final = (1 << 128) - 1
_ADD: Final = 0x9E3779B97F4A7C15
_XOR: Final = 0xD1B54A32D192ED03


def digest_key(block_hash: Hash) -> int:
    """Return the 64 bits of a hash that enter the digest: the low bits of an integer, or the last 8 bytes."""
    if isinstance(block_hash, int):
        return block_hash & _MASK_64
    return int.from_bytes(block_hash[-8:], "big")


def splitmix64(x: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): a permutation of the unsigned 64-bit integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return x ^ (x >> 31)


def _spread(block_hash: Hash) -> int:
    key = digest_key(block_hash)
    return splitmix64((key + _ADD) & _MASK_64) << 64 | splitmix64(key ^ _XOR)


class SetDigest:
    """The sum, modulo 2^128, of the 128-bit mixes of the hashes in a set.

    The digest cannot know what it contains: the caller adds a hash once when it becomes resident, and discards it once.
    """

    __slots__ = ("count", "value")

    def __init__(self, hashes: "list[Hash] | tuple[Hash, ...]" = ()) -> None:
        self.count = 0
        self.value = 0
        for block_hash in hashes:
            self.add(block_hash)

    def add(self, block_hash: Hash) -> None:
        """Add a hash that is not in the set."""
        self.value = (self.value + _spread(block_hash)) & _MASK_128
        self.count += 1

    def discard(self, block_hash: Hash) -> None:
        """Discard a hash that is in the set."""
        self.value = (self.value - _spread(block_hash)) & _MASK_128
        self.count -= 1

    def clear(self) -> None:
        """Reset to the digest of the empty set."""
        self.count = 0
        self.value = 0

    def hex(self) -> str:
        """Return the value as 32 hex digits."""
        return f"{self.value:032x}"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SetDigest):
            return NotImplemented
        return self.count == other.count and self.value == other.value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"SetDigest(count={self.count}, value={self.hex()})"
