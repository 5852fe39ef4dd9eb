"""A stretch of bytes that can be read and written by offset, wherever it lies."""

from abc import ABC, abstractmethod
from enum import Enum
from typing import Self

from kvsync_testkit.errors import TransferError


class StorageKind(Enum):
    """Where the bytes of a layout lie."""

    SYSTEM = "system"
    """Ordinary memory of this process."""
    PINNED = "pinned"
    """Memory that the system promises not to page out, as DMA engines need it."""
    DISK = "disk"
    """A file."""
    SHARED = "shared"
    """Memory that another process can attach by name."""


class Region(ABC):
    """`size` bytes, zero at first. A context manager that gives the memory or file back.

    Reads and writes outside the region raise `TransferError` and change nothing.
    """

    kind: StorageKind

    def __init__(self, size: int) -> None:
        self.size = size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, offset: int, length: int) -> bytes:
        """A copy of `length` bytes from `offset` on."""
        self._check(offset, length)
        return self._read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Put `data` at `offset`."""
        self._check(offset, len(data))
        self._write(offset, data)

    @abstractmethod
    def close(self) -> None:
        """Give the bytes back to the system; closing twice has no effect."""

    @abstractmethod
    def _read(self, offset: int, length: int) -> bytes: ...

    @abstractmethod
    def _write(self, offset: int, data: bytes) -> None: ...

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise TransferError(f"bytes {offset} to {offset + length} are outside a region of {self.size} bytes")
