"""Where a picker's endpoints come from: the publishers of an index, or a publishers file.

A further source is a `Directory` of its own, chosen here.
"""

from collections.abc import Sequence
from pathlib import Path

from kvsync_router.errors import RouterConfigError
from kvsync_router.sources.directory import Directory, FileDirectory


def choose_directory(index_urls: Sequence[str], publishers: Path | None) -> Directory | None:
    """The source that the flags name; None for the index. Raises RouterConfigError."""
    if publishers is not None:
        directory = FileDirectory(publishers)
        directory.read()
        return directory
    if not index_urls:
        raise RouterConfigError("give --index-url, --publishers, or both: the picker has no endpoints without")
    return None
