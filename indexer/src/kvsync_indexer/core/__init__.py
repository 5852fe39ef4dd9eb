"""The index core: which blocks each publisher holds, and which publishers hold how much of a prompt.

`make_core` makes an `IndexCore`; the other names are what its methods take, return and raise.
"""

from kvsync_indexer.core.errors import (
    CoreError,
    CoreUnavailableError,
    LimitError,
    PublisherConflictError,
    QueryError,
    SnapshotError,
    UnknownPublisherError,
)
from kvsync_indexer.core.factory import CORE_KINDS, CoreKind, make_core, native_available
from kvsync_indexer.core.protocol import (
    Applied,
    BlockRow,
    Context,
    CoreLimits,
    CoreStats,
    DigestRow,
    IndexCore,
    Match,
    Tokens,
)
from kvsync_indexer.core.python_core import PythonCore
from kvsync_indexer.core.snapshot import join_snapshot

__all__ = [
    "CORE_KINDS",
    "Applied",
    "BlockRow",
    "Context",
    "CoreError",
    "CoreKind",
    "CoreLimits",
    "CoreStats",
    "CoreUnavailableError",
    "DigestRow",
    "IndexCore",
    "LimitError",
    "Match",
    "PublisherConflictError",
    "PythonCore",
    "QueryError",
    "SnapshotError",
    "Tokens",
    "UnknownPublisherError",
    "join_snapshot",
    "make_core",
    "native_available",
]
