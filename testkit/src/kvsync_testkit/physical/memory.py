"""Memory of this process: ordinary pages, and pages locked with mlock(2)."""

import ctypes
import mmap
import os
import resource

from kvsync_testkit.errors import StorageUnavailableError
from kvsync_testkit.physical.regions import Region, StorageKind


class SystemRegion(Region):
    """Anonymous pages, taken from the system only as they are written."""

    kind = StorageKind.SYSTEM

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._pages = mmap.mmap(-1, size)

    def close(self) -> None:
        """Unmap the pages."""
        self._pages.close()

    def _read(self, offset: int, length: int) -> bytes:
        return self._pages[offset : offset + length]

    def _write(self, offset: int, data: bytes) -> None:
        self._pages[offset : offset + len(data)] = data


class PinnedRegion(SystemRegion):
    """Anonymous pages that mlock(2) keeps in memory.

    Raises:
        StorageUnavailableError: the system has no mlock, or refuses it; the reason names the limit.
    """

    kind = StorageKind.PINNED

    def __init__(self, size: int) -> None:
        super().__init__(size)
        try:
            self._lock()
        except StorageUnavailableError:
            super().close()
            raise

    def _lock(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if not hasattr(libc, "mlock"):
            raise StorageUnavailableError("pinned memory", "this system's C library has no mlock")
        # The exported buffer goes out of scope with this call, so that the pages can be unmapped later.
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(self.size)):
            why = os.strerror(ctypes.get_errno())
            limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
            raise StorageUnavailableError(
                "pinned memory", f"mlock of {self.size} bytes failed: {why} (RLIMIT_MEMLOCK is {limit} bytes)"
            )
