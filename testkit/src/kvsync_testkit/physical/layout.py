"""Where each layer of each block lies.

Both layouts hold the same blocks; they differ in what is adjacent. Fully contiguous: one region, one block after
another, so a whole block is one stretch. Layer-wise: one region per layer, so all blocks of a layer are one stretch,
which is how an engine that computes layer by layer keeps them. The unit of access is one layer of one block,
`config.layer_bytes` bytes, in the same order of elements in both.
"""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Self

from kvsync_testkit.errors import TransferError
from kvsync_testkit.physical.config import LayoutConfig, standard_config
from kvsync_testkit.physical.regions import Region, StorageKind
from kvsync_testkit.physical.storage import open_region


class LayoutKind(Enum):
    """What is adjacent in memory."""

    FULLY_CONTIGUOUS = "fully_contiguous"
    LAYER_WISE = "layer_wise"


class PhysicalLayout:
    """Blocks in memory of one storage kind. A context manager that gives the memory back.

    Attributes:
        config: The shape.
        kind: Fully contiguous or layer-wise.
        storage: Where the bytes lie.
        regions: One region, or one per layer.
    """

    def __init__(
        self,
        config: LayoutConfig,
        kind: LayoutKind = LayoutKind.FULLY_CONTIGUOUS,
        storage: StorageKind = StorageKind.SYSTEM,
        directory: Path | None = None,
    ) -> None:
        self.config = config
        self.kind = kind
        self.storage = storage
        contiguous = kind is LayoutKind.FULLY_CONTIGUOUS
        count, size = (1, config.total_bytes) if contiguous else (config.layers, config.blocks * config.layer_bytes)
        self.regions: list[Region] = []
        try:
            for _ in range(count):
                self.regions.append(open_region(storage, size, directory))
        except BaseException:
            self.close()
            raise

    @staticmethod
    def builder() -> "LayoutBuilder":
        """Settings by name, with a default for each."""
        return LayoutBuilder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def locate(self, block: int, layer: int) -> tuple[Region, int]:
        """The region and offset at which one layer of one block begins.

        Raises:
            TransferError: there is no such block or layer.
        """
        config = self.config
        if not 0 <= block < config.blocks:
            raise TransferError(f"block {block} is outside a layout of {config.blocks} blocks")
        if not 0 <= layer < config.layers:
            raise TransferError(f"layer {layer} is outside a layout of {config.layers} layers")
        if self.kind is LayoutKind.FULLY_CONTIGUOUS:
            return self.regions[0], block * config.block_bytes + layer * config.layer_bytes
        return self.regions[layer], block * config.layer_bytes

    def read_layer(self, block: int, layer: int) -> bytes:
        """A copy of one layer of one block."""
        region, offset = self.locate(block, layer)
        return region.read(offset, self.config.layer_bytes)

    def write_layer(self, block: int, layer: int, data: bytes) -> None:
        """Replace one layer of one block.

        Raises:
            TransferError: no such block or layer, or `data` is not exactly `config.layer_bytes` long.
        """
        region, offset = self.locate(block, layer)
        if len(data) != self.config.layer_bytes:
            raise TransferError(f"a layer of a block has {self.config.layer_bytes} bytes, not {len(data)}")
        region.write(offset, data)

    def read_block(self, block: int) -> bytes:
        """A copy of all layers of a block, one after another."""
        return b"".join(self.read_layer(block, layer) for layer in range(self.config.layers))

    def write_block(self, block: int, data: bytes) -> None:
        """Replace all layers of a block."""
        if len(data) != self.config.block_bytes:
            raise TransferError(f"a block has {self.config.block_bytes} bytes, not {len(data)}")
        size = self.config.layer_bytes
        for layer in range(self.config.layers):
            self.write_layer(block, layer, data[layer * size : (layer + 1) * size])

    def close(self) -> None:
        """Give every region back; closing twice has no effect."""
        for region in self.regions:
            region.close()


class LayoutBuilder:
    """Settings of a layout: 16 blocks of the standard shape, fully contiguous in system memory, unless changed."""

    def __init__(self) -> None:
        self._config = standard_config(16)
        self._kind = LayoutKind.FULLY_CONTIGUOUS
        self._storage = StorageKind.SYSTEM
        self._directory: Path | None = None

    def config(self, config: LayoutConfig) -> Self:
        """The shape."""
        self._config = config
        return self

    def blocks(self, blocks: int) -> Self:
        """The number of blocks; the rest of the shape stays."""
        self._config = self._config.with_blocks(blocks)
        return self

    def kind(self, kind: LayoutKind) -> Self:
        """Fully contiguous or layer-wise."""
        self._kind = kind
        return self

    def storage(self, storage: StorageKind) -> Self:
        """Where the bytes lie."""
        self._storage = storage
        return self

    def directory(self, directory: Path) -> Self:
        """Where disk files go."""
        self._directory = directory
        return self

    def build(self) -> PhysicalLayout:
        """The layout, its memory taken.

        Raises:
            StorageUnavailableError: the system does not grant this kind of memory, or not this much.
        """
        return PhysicalLayout(self._config, self._kind, self._storage, self._directory)


def create_layout(
    config: LayoutConfig,
    kind: LayoutKind = LayoutKind.FULLY_CONTIGUOUS,
    storage: StorageKind = StorageKind.SYSTEM,
    *,
    directory: Path | None = None,
) -> PhysicalLayout:
    """A layout in one call; `LayoutBuilder` with the same settings."""
    return PhysicalLayout(config, kind, storage, directory)


def distinct(ids: Iterable[int], what: str) -> list[int]:
    """The ids as a list.

    Raises:
        TransferError: an id occurs twice.
    """
    listed = list(ids)
    if len(set(listed)) != len(listed):
        raise TransferError(f"{what} names a block twice: {listed}")
    return listed
