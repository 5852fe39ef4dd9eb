"""Limits on the contents of a payload, checked before memory of that size is allocated.

A publisher is another process, which may be broken or hostile. Its payloads must not cost the reader more memory than a
small multiple of the bytes received. msgpack allocates an array as soon as it has read the header, so that a few nested
headers that each claim millions of elements would exhaust the memory. `check_claims` refuses such payloads.
"""

from dataclasses import dataclass
from typing import Final

from kvsync_events.errors import DecodeError


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest accepted sizes, as counts unless the name says bytes.

    The defaults leave room for a step that stores a context of two million tokens in one event.
    """

    max_payload_bytes: int = 64 * 1024 * 1024
    max_events: int = 65_536
    """Events in a batch."""
    max_hashes: int = 262_144
    """Block hashes, and entries that go with them, in one event."""
    max_tokens: int = 2 * 1024 * 1024
    """Token ids in one event."""
    max_hash_bytes: int = 64
    """Size of a raw digest."""
    max_text_bytes: int = 65_536
    """Size of any string or key."""
    max_block_size: int = 1024 * 1024
    """Tokens per block."""
    max_key_parts: int = 1024
    """Extra keys per block."""
    max_depth: int = 16
    """Nested arrays and maps, counting the batch itself as the first."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


DEFAULT_LIMITS: Final = Limits()

_HARMLESS: Final = 4096
"""Smaller claims cost at most 32 KiB per level, and msgpack itself stops at 1024 levels."""
_BUDGET: Final = 8 * 1024 * 1024
"""The number of elements (8 bytes each) that all larger claims together may request without an exact walk."""


def check_claims(payload: bytes, limits: Limits) -> None:
    """Refuse a payload whose array headers claim more elements than its bytes can hold.

    A cheap estimate comes first: the number of bytes that could be the header of a long array, and then the sum of
    their claims. The structure is walked only if that sum is large, which happens with large payloads that contain
    random hashes, and in an attack.

    Raises:
        DecodeError: a claim does not fit, or the payload is truncated or nested too deeply.
    """
    size = len(payload)
    if size < _HARMLESS or (payload.count(0xDC) + payload.count(0xDD)) * size <= _BUDGET:
        return
    claimed = 0
    for marker, width in ((0xDC, 2), (0xDD, 4)):
        at = payload.find(marker)
        while at >= 0:
            claim = int.from_bytes(payload[at + 1 : at + 1 + width], "big")
            if _HARMLESS <= claim <= size:
                claimed += claim
            at = payload.find(marker, at + 1)
    if claimed > _BUDGET:
        _walk(payload, limits.max_depth)


def _fixed_widths() -> list[int]:
    """Return, for each first byte, the number of bytes that follow it, or -1 if the width is not fixed."""
    widths = [-1] * 256
    for code in (*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)):
        widths[code] = 0
    for code, width in ((0xCA, 4), (0xCB, 8), (0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)):
        widths[code] = width
    for code, width in ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8)):
        widths[code] = width
    for code, width in ((0xD4, 2), (0xD5, 3), (0xD6, 5), (0xD7, 9), (0xD8, 17)):
        widths[code] = width
    for code in range(0xA0, 0xC0):
        widths[code] = code & 0x1F
    return widths


_FIXED: Final = _fixed_widths()
_RAW_LENGTH: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_EXT_LENGTH: Final = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_ITEMS_LENGTH: Final = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def _walk(payload: bytes, max_depth: int) -> None:
    """Follow the structure without building it, and check that every claim fits into the remaining bytes."""
    at, size = 0, len(payload)
    left = [1]
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        if at >= size:
            raise DecodeError("truncated: the payload ends inside a value")
        code = payload[at]
        at += 1
        width = _FIXED[code]
        if width >= 0:
            at += width
            continue
        at, items = _read_length(payload, at, code)
        if items < 0:
            continue
        if items > size - at:
            raise DecodeError(f"an array or map claims {items} elements with {size - at} bytes left")
        left.append(items)
        if len(left) > max_depth + 1:
            raise DecodeError(f"arrays and maps are nested more than {max_depth} deep")


def _read_length(payload: bytes, at: int, code: int) -> tuple[int, int]:
    """Return the position after a variable-width header, and the number of values that follow.

    A raw body is skipped, and its number of values is -1.
    """
    if code < 0xA0:
        return at, (code & 0x0F) * (1 if code >= 0x90 else 2)
    raw = _RAW_LENGTH.get(code)
    if raw is not None:
        return at + raw + int.from_bytes(payload[at : at + raw], "big"), -1
    ext = _EXT_LENGTH.get(code)
    if ext is not None:
        return at + ext + 1 + int.from_bytes(payload[at : at + ext], "big"), -1
    items = _ITEMS_LENGTH.get(code)
    if items is None:
        raise DecodeError(f"byte 0x{code:02x} does not start a value")
    width, each = items
    return at + width, int.from_bytes(payload[at : at + width], "big") * each
