"""The file format of a snapshot: the state of the core together with the position of each stream, and a checksum.

    magic (8) | version (u32) | header bytes (u64) | core bytes (u64) | header (JSON) | core | SHA-256 (32)

Integers are little-endian, and the checksum covers everything before it. A file is written under a temporary name,
flushed to the disk and renamed, so that a reader sees either the old or the new snapshot. A file that cannot be
verified is refused as a whole.
"""

import contextlib
import hashlib
import os
import struct
from pathlib import Path
from typing import Final

import msgspec

from kvsync_indexer.errors import SnapshotFileError

FILE_NAME: Final = "index.snapshot"
TAIL: Final = 64
"""Digests that are stored per publisher: more batches than a replay overlaps."""
_MAGIC: Final = b"KVSYSNAP"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIQQ")
_CHECKSUM_BYTES: Final = 32


class StreamPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The position of one stream: the core holds the publisher's blocks after batch `next_seq - 1`."""

    name: str
    model: str
    epoch: str | None
    next_seq: int
    base_seq: int | None
    incomplete: bool
    tail: list[tuple[int, int]]
    """(sequence number, digest) of the last applied batches, by which a continued stream is recognised."""
    last_copy_only: bool = False
    """The blocks were built from an engine that announces only the removal of last copies."""


class SnapshotHeader(msgspec.Struct, frozen=True, kw_only=True):
    """Everything except the bytes of the core."""

    created: float
    """Wall time, seconds."""
    core: str
    publishers: list[StreamPoint]


def encode_snapshot(header: SnapshotHeader, core: bytes) -> bytes:
    """The whole file."""
    head = msgspec.json.encode(header)
    body = _HEAD.pack(_MAGIC, _VERSION, len(head), len(core)) + head + core
    return body + hashlib.sha256(body).digest()


def decode_snapshot(data: bytes) -> tuple[SnapshotHeader, bytes]:
    """Header and core bytes. Raises SnapshotFileError."""
    if len(data) < _HEAD.size + _CHECKSUM_BYTES:
        raise SnapshotFileError(f"{len(data)} bytes are too few for a snapshot")
    magic, version, head_bytes, core_bytes = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise SnapshotFileError("not a snapshot of this index")
    if version != _VERSION:
        raise SnapshotFileError(f"snapshot version {version}, this program reads {_VERSION}")
    if _HEAD.size + head_bytes + core_bytes + _CHECKSUM_BYTES != len(data):
        raise SnapshotFileError("cut off, or longer than it says")
    if hashlib.sha256(memoryview(data)[:-_CHECKSUM_BYTES]).digest() != data[-_CHECKSUM_BYTES:]:
        raise SnapshotFileError("the checksum does not match")
    core_at = _HEAD.size + head_bytes
    try:
        header = msgspec.json.decode(data[_HEAD.size : core_at], type=SnapshotHeader)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise SnapshotFileError(f"unusable header: {error}") from None
    return header, data[core_at : core_at + core_bytes]


def write_snapshot(directory: Path, data: bytes) -> Path:
    """Replace the snapshot in `directory` atomically. Raises OSError, and the old snapshot then stays."""
    target = directory / FILE_NAME
    temporary = directory / f".{FILE_NAME}.{os.getpid()}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return target


def read_snapshot(directory: Path) -> bytes | None:
    """The bytes of the snapshot in `directory`, or None if there is none. Raises SnapshotFileError."""
    try:
        return (directory / FILE_NAME).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SnapshotFileError(f"{directory / FILE_NAME}: {error.strerror}") from None
