"""W3C trace context: the router passes a trace on, and begins one for a request that has none.

The router records no spans, so it leaves the parent of a trace as it is: the engine's span hangs from the client's.
Source: https://www.w3.org/TR/trace-context/ (version 00).
"""

import random
import re
from typing import Final

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"
_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_NOT_SAMPLED: Final = "00"


def trace_id(traceparent: bytes) -> str | None:
    """The trace to which a header belongs; None if the header is invalid, so that a new trace must begin."""
    parts = _PARENT.fullmatch(traceparent.strip())
    if parts is None:
        return None
    version, trace, parent, rest = parts.groups()
    if version == b"ff" or (version == b"00" and rest) or not trace.strip(b"0") or not parent.strip(b"0"):
        return None
    return trace.decode()


def new_traceparent(rng: random.Random) -> bytes:
    """The header of a new trace, which is not sampled: whether it is recorded is decided by whoever does."""
    trace = rng.getrandbits(128) or 1
    parent = rng.getrandbits(64) or 1
    return f"00-{trace:032x}-{parent:016x}-{_NOT_SAMPLED}".encode()
