"""The native index core: `IndexCore` is the twin of `kvsync_indexer.core.PythonCore`, and tested against it.

Do not import it directly; `kvsync_indexer.core.make_core` chooses.
"""

from collections.abc import Sequence

from kvsync_native._core import AnswerTable, IndexCore, Matches, split_token_ids

Sequence.register(Matches)

__all__ = ["AnswerTable", "IndexCore", "Matches", "split_token_ids"]
