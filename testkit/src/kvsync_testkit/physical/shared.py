"""Memory that other processes can attach."""

from multiprocessing.shared_memory import SharedMemory

from kvsync_testkit.errors import TransferError
from kvsync_testkit.physical.regions import Region, StorageKind


class SharedRegion(Region):
    """A named shared memory segment.

    The region that creates the segment removes it when it is closed; `attach` gives a second view of the same bytes,
    and closing that view leaves them alone.
    """

    kind = StorageKind.SHARED

    def __init__(self, size: int, *, attach_to: str | None = None) -> None:
        super().__init__(size)
        self._owns = attach_to is None
        self._segment = SharedMemory(attach_to, create=self._owns, size=size if self._owns else 0)
        self._closed = False

    @property
    def name(self) -> str:
        """The name by which the segment is attached."""
        return self._segment.name

    def attach(self) -> "SharedRegion":
        """A second mapping of the same segment."""
        return SharedRegion(self.size, attach_to=self.name)

    def close(self) -> None:
        """Unmap, and remove the segment if this region created it."""
        if self._closed:
            return
        self._closed = True
        self._segment.close()
        if self._owns:
            self._segment.unlink()

    def _read(self, offset: int, length: int) -> bytes:
        return bytes(self._view()[offset : offset + length])

    def _write(self, offset: int, data: bytes) -> None:
        self._view()[offset : offset + len(data)] = data

    def _view(self) -> memoryview:
        if self._segment.buf is None:
            raise TransferError(f"shared memory {self.name} is closed")
        return self._segment.buf
