"""The native index core: the twin of `kvsync_indexer.core.PythonCore`, against which it is tested.

Use `kvsync_indexer.core.make_core`, which chooses the implementation, instead of importing this package directly.
"""

from collections.abc import Sequence

from kvsync_native._core import AnswerTable, Matches, split_token_ids
from kvsync_native.index_core import IndexCore

Sequence.register(Matches)

__all__ = ["AnswerTable", "IndexCore", "Matches", "split_token_ids"]
