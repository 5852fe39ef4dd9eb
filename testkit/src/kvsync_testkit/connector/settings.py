"""Validated settings of a connector."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.physical import LayoutConfig

_GIB: Final = 1 << 30


class ConnectorRole(StrEnum):
    """Which way blocks go, in vLLM's words."""

    PRODUCER = "kv_producer"
    """Saves blocks and never loads any."""
    CONSUMER = "kv_consumer"
    """Loads blocks and never saves any."""
    BOTH = "kv_both"


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    """What leader and workers are built from; validated when it is made.

    Raises:
        ConfigurationError: a value is out of range, or the cache has no room for one block.
    """

    role: ConnectorRole
    host_blocks: int
    """Capacity of host memory (G2) in blocks."""
    disk_blocks: int
    """Capacity of the disk (G3) in blocks; 0 for none."""
    device_blocks: int
    """Blocks of each worker's device layout."""
    worker_threads: int
    """Transfers that one worker makes at the same time."""
    backends: tuple[str, ...]
    """Transfer backends that every worker must have; the first is used."""
    shape: LayoutConfig
    """The shape of one worker's blocks; `shape.page_size` is the block size."""

    def __post_init__(self) -> None:
        if self.host_blocks < 1:
            raise ConfigurationError(f"the leader's cache has no room for one block of {self.shape.block_bytes} bytes")
        if self.worker_threads < 1:
            raise ConfigurationError(f"worker_threads {self.worker_threads}: a worker needs at least one")
        if self.device_blocks < 1:
            raise ConfigurationError(f"device_blocks {self.device_blocks}: a worker needs at least one")
        if not self.backends:
            raise ConfigurationError("backends is empty: a worker needs at least one to move bytes")

    @property
    def block_size(self) -> int:
        """Tokens per block."""
        return self.shape.page_size


def blocks_in(gigabytes: float, shape: LayoutConfig) -> int:
    """How many whole blocks fit into so many GiB.

    Raises:
        ConfigurationError: a negative or non-finite size.
    """
    if not 0 <= gigabytes < float("inf"):
        raise ConfigurationError(f"{gigabytes} GiB is not the size of a cache")
    return int(gigabytes * _GIB) // shape.block_bytes
