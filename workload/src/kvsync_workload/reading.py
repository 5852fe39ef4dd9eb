"""Reads a workload file in any format that is understood, told apart by what it holds."""

from pathlib import Path

from kvsync_workload.trace import Trace, read_trace
from kvsync_workload.weka import is_conversation, read_conversations


def read_workload(path: Path, limit: int | None = None) -> Trace:
    """The first `limit` requests of a Mooncake trace, of a conversation in Weka's format, or of a folder of those.

    Raises TraceError.
    """
    return read_conversations(path, limit) if is_conversation(path) else read_trace(path, limit)
