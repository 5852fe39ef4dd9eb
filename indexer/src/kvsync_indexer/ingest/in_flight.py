"""What the I/O thread is applying at the moment, in a file that outlives the process.

A payload that makes the process hang or run out of memory would do so again after every restart, because the
publisher's replay brings it again. So each call of the core is marked in a small file, which is mapped into memory: a
mark costs no system call, and the kernel keeps it however the process ends. The next process reads the mark. If it
names one payload, that payload is set aside: it is treated like one that cannot be decoded. If it names several, these
are applied one by one, so that the mark names the guilty one if there is one. A process that was killed for another
reason while it applied something leaves a mark as well; then one payload is set aside for nothing, and the publisher is
incomplete until its cache has turned over.
"""

import contextlib
import errno
import mmap
import os
import stat
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog
from xxhash import xxh3_64_intdigest

_log = structlog.get_logger("kvsync_indexer.ingest")

MARK_NAME: Final = "index.applying"
LIST_NAME: Final = "index.set-aside"
MOST: Final = 64
"""Payloads and runs that are remembered; the oldest is forgotten."""
_BYTES: Final = 4096
_MARK: Final = struct.Struct("<BIQQH")
"""Active, number of payloads, first sequence number, digest of the first payload, bytes of the name that follows."""


class Marked(msgspec.Struct, frozen=True):
    """Payloads that a process did not survive, or of which it did not survive one."""

    publisher: str
    seq: int
    digest: int
    """Of the first payload: the same number with other bytes comes from another process of the engine."""
    count: int = 1


class InFlight:
    """An `ApplyGuard` in a directory. Every method runs in the I/O thread, but for the opening and closing."""

    def __init__(self, directory: Path) -> None:
        """Read what the last process was applying when it ended. Raises OSError."""
        self._list_path = directory / LIST_NAME
        self._known = _read_list(self._list_path)
        self._file = os.open(directory / MARK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(self._file, _BYTES)
            self._map = mmap.mmap(self._file, _BYTES)
        except BaseException:
            os.close(self._file)
            raise
        self._name = ""
        self._encoded = b""
        self._take_over()
        self._publishers = frozenset(one.publisher for one in self._known)

    def begin(self, publisher: str, first_seq: int, payloads: Sequence[bytes]) -> None:
        """See ApplyGuard, for this and the following."""
        if publisher != self._name:
            self._name = publisher
            self._encoded = publisher.encode()[: _BYTES - _MARK.size]
            self._map[_MARK.size : _MARK.size + len(self._encoded)] = self._encoded
        digest = xxh3_64_intdigest(payloads[0])
        _MARK.pack_into(self._map, 0, 1, len(payloads), first_seq, digest, len(self._encoded))

    def end(self) -> None:
        """Unmark."""
        self._map[0] = 0

    def is_set_aside(self, publisher: str, seq: int, payload: bytes) -> bool:
        """Look among the payloads of earlier marks."""
        if publisher not in self._publishers:
            return False
        digest = xxh3_64_intdigest(payload)
        return any(one == Marked(publisher, seq, digest) for one in self._known)

    def applies_singly(self, publisher: str, seq: int) -> bool:
        """Look among the runs of earlier marks, and the payloads, which must be found in a run."""
        if publisher not in self._publishers:
            return False
        return any(one.publisher == publisher and one.seq <= seq < one.seq + one.count for one in self._known)

    def close(self) -> None:
        """Close the file; a mark that is set stays."""
        self._map.close()
        os.close(self._file)

    def _take_over(self) -> None:
        """Turn the mark of the last process, if there is one, into an entry of the list."""
        active, count, seq, digest, name_bytes = _MARK.unpack_from(self._map)
        self._map[0] = 0
        if active != 1 or not count or name_bytes > _BYTES - _MARK.size:
            return
        name = self._map[_MARK.size : _MARK.size + name_bytes].decode(errors="replace")
        one = Marked(name, seq, digest, count)
        self._known = [*(each for each in self._known if each != one), one][-MOST:]
        if count == 1:
            _log.error("payload_set_aside", publisher=name, seq=seq)
        else:
            _log.error("run_suspected", publisher=name, seq=seq, batches=count)
        temporary = self._list_path.with_name(f".{LIST_NAME}.{os.getpid()}")
        with contextlib.suppress(OSError):
            temporary.write_bytes(msgspec.json.encode(self._known))
            temporary.replace(self._list_path)


def temporary_directory(port: int) -> Path:
    """A directory of this user for the index on this port, where there is no directory for snapshots.

    A container that is started again finds it as long as its pod keeps the volume of the temporary files. Raises
    OSError, also if another user has made it.
    """
    directory = Path(tempfile.gettempdir()) / f"kvsync-indexer-{os.geteuid()}-{port}"
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "not a directory of this user alone", str(directory))
    return directory


def _read_list(path: Path) -> list[Marked]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Marked])[-MOST:]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        _log.error("set_aside_list_ignored", path=str(path), problem=str(error))
        return []
