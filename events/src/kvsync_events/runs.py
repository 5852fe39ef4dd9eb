"""Block transitions inside one process, where an engine and an index need no wire between them.

The hash of such a block identifies the block together with everything before it, on every engine: equal hashes mean
equal prefixes. An index can therefore follow the hashes alone. Nothing is encoded, and no token is hashed.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from kvsync_events.types import Hash


class StoredRun(NamedTuple):
    """Blocks that became resident, in chain order. An index reads only hashes that are unsigned 64-bit integers."""

    hashes: Sequence[Hash]
    medium: str
    parent: Hash | None
    """The hash of the block before the first one."""


class RemovedRun(NamedTuple):
    """One copy of each of these blocks is gone."""

    hashes: Sequence[Hash]
    medium: str


BlockRun: TypeAlias = StoredRun | RemovedRun
