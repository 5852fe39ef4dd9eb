"""Blocks of one publisher, and the identity of their hashes."""

from kvsync_events import Hash
from kvsync_indexer.core.keys import MASK_64

_MASK_32 = 0xFFFFFFFF


def engine_hash(raw_hash: Hash) -> int:
    """The identity of a hash as sent: its low 64 bits, or the last 8 bytes of a digest (as in `SetDigest`)."""
    return raw_hash & MASK_64 if isinstance(raw_hash, int) else int.from_bytes(raw_hash[-8:], "big")


def unsigned(raw_hash: Hash) -> Hash:
    """The hash as sent, with an integer as an unsigned one."""
    return raw_hash & MASK_64 if isinstance(raw_hash, int) else raw_hash


def key_tag(prefix_key: int | None) -> int:
    """The low 32 bits of a prefix key, by which a block remembers its parent; 0 for no key."""
    return 0 if prefix_key is None else prefix_key & _MASK_32


class Block:
    """One engine hash that is resident in some slot."""

    __slots__ = ("copies", "local_hash", "parent", "parent_tag", "prefix_key")

    def __init__(self, prefix_key: int | None, parent_tag: int, local_hash: int | None, parent: Hash | None) -> None:
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
