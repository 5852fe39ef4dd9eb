"""Canonical bytes of extra keys: equal values, however they were encoded, give equal bytes.

A tag byte precedes each value, followed by the length of everything of variable length: N null, T true, F false, I
integer (16 bytes, little-endian, signed), D double (8 bytes), S text (UTF-8), B bytes, L sequence, M map. The entries
of a map are sorted by the canonical bytes of their keys, which are text or bytes.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Final

MAX_KEY_DEPTH: Final = 8
"""Sequences and maps inside each other in one extra key."""
_LENGTH: Final = struct.Struct("<I")


def canonical(parts: Iterable[object]) -> bytes:
    """Bytes that two sequences of values share only if they are equal. Raises ValueError for anything else."""
    out = bytearray()
    for part in parts:
        _append(out, part, 0)
    return bytes(out)


def _append(out: bytearray, part: object, depth: int) -> None:
    if depth > MAX_KEY_DEPTH:
        raise ValueError(f"an extra key has more than {MAX_KEY_DEPTH} sequences and maps inside each other")
    if isinstance(part, (tuple, list)):
        out += b"L" + _LENGTH.pack(len(part))
        for inner in part:
            _append(out, inner, depth + 1)
    elif isinstance(part, Mapping):
        _append_map(out, part, depth + 1)
    elif isinstance(part, bytes):
        _append_sized(out, b"B", part)
    elif isinstance(part, str):
        try:
            _append_sized(out, b"S", part.encode())
        except UnicodeEncodeError:
            raise ValueError("an extra key's text is not valid Unicode") from None
    else:
        out += _scalar(part)


def _scalar(part: object) -> bytes:
    if part is None:
        return b"N"
    if isinstance(part, bool):
        return b"T" if part else b"F"
    if isinstance(part, float):
        return b"D" + struct.pack("<d", part)
    if not isinstance(part, int):
        kind = type(part).__name__
        raise ValueError(f"an extra key must be text, bytes, a number, null, a tuple or a map of those, not {kind}")
    if not -(1 << 127) <= part < 1 << 127:
        raise ValueError("an extra key's integer does not fit in 128 bits")
    return b"I" + part.to_bytes(16, "little", signed=True)


def _append_sized(out: bytearray, tag: bytes, body: bytes) -> None:
    out += tag
    out += _LENGTH.pack(len(body))
    out += body


def _append_map(out: bytearray, entries: Mapping[object, object], depth: int) -> None:
    pairs = []
    for key, value in entries.items():
        if not isinstance(key, (str, bytes)):
            raise ValueError(f"a key of a map in an extra key must be text or bytes, not {type(key).__name__}")
        encoded = bytearray()
        _append(encoded, value, depth)
        pairs.append((canonical((key,)), bytes(encoded)))
    out += b"M" + _LENGTH.pack(len(pairs))
    for pair in sorted(pairs):
        out += pair[0] + pair[1]
