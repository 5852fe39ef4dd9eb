"""Blocks of one publisher, and the identity of their hashes."""

from typing import Final

from kvsync_events import Hash
from kvsync_indexer.core.keys import MASK_64

_MASK_32: Final = 0xFFFFFFFF
_SPREAD: Final = 0x9E3779B97F4A7C15


def engine_hash(raw_hash: Hash) -> int:
    """The identity of a hash as sent: its low 64 bits, or the last 8 bytes of a digest (as in `SetDigest`)."""
    return raw_hash & MASK_64 if isinstance(raw_hash, int) else int.from_bytes(raw_hash[-8:], "big")


def block_id(hashed: int, size_number: int) -> int:
    """The identity of a block: its engine hash, combined with the number of its block size.

    The function is its own inverse. For the only block size of a publisher, whose number is 0, the id is the hash.
    """
    return hashed ^ (size_number * _SPREAD & MASK_64)


def unsigned(raw_hash: Hash) -> Hash:
    """The hash as sent, with an integer as an unsigned one."""
    return raw_hash & MASK_64 if isinstance(raw_hash, int) else raw_hash


def key_tag(prefix_key: int | None) -> int:
    """The low 32 bits of a prefix key, by which a block remembers its parent; 0 for no key."""
    return 0 if prefix_key is None else prefix_key & _MASK_32


class Block:
    """One engine hash of one block size that is resident in some slot."""

    __slots__ = ("copies", "local_hash", "parent", "parent_tag", "prefix_key", "size_number")

    def __init__(
        self, size_number: int, prefix_key: int | None, parent_tag: int, local_hash: int | None, parent: Hash | None
    ) -> None:
        self.size_number = size_number
        self.prefix_key = prefix_key
        """None for an orphan."""
        self.parent_tag = parent_tag
        """The tag of the parent's prefix key, 0 for the first block of a chain; of attached blocks only."""
        self.local_hash = local_hash
        """Of orphans only; None if the tokens are not known either."""
        self.parent = parent
        """The raw hash of the parent; of orphans only, which wait for it."""
        self.copies: dict[int, int] = {}
        """By slot number."""

    @property
    def parent_id(self) -> int | None:
        """The id of the parent that an orphan waits for."""
        return None if self.parent is None else block_id(engine_hash(self.parent), self.size_number)
