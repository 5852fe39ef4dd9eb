"""The shape of KV blocks: how many there are and how many bytes each layer of one takes."""

from dataclasses import dataclass, fields, replace
from typing import Self

from kvsync_testkit.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class LayoutConfig:
    """Blocks of `[layers][outer_dim][page_size][inner_dim]` elements of `dtype_width` bytes.

    Raises:
        ConfigurationError: a field is below 1.
    """

    blocks: int
    """Number of blocks."""
    layers: int = 2
    """Layers of the model, each of which has its own part of every block."""
    outer_dim: int = 2
    """2 where keys and values are apart, 1 where they are one."""
    page_size: int = 16
    """Tokens per block."""
    inner_dim: int = 128
    """Elements per token: key-value heads times the size of a head."""
    dtype_width: int = 2
    """Bytes per element; 2 for half precision."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 1:
                raise ConfigurationError(f"{field.name} {getattr(self, field.name)}: a layout needs at least 1")

    @property
    def layer_bytes(self) -> int:
        """Bytes of one layer of one block."""
        return self.outer_dim * self.page_size * self.inner_dim * self.dtype_width

    @property
    def block_bytes(self) -> int:
        """Bytes of one block, all layers."""
        return self.layers * self.layer_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        return self.blocks * self.block_bytes

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """What two layouts must agree in before blocks can be copied between them; their sizes may differ."""
        return (self.layers, self.outer_dim, self.page_size, self.inner_dim, self.dtype_width)

    def with_blocks(self, blocks: int) -> Self:
        """The same shape for another number of blocks."""
        return replace(self, blocks=blocks)


def standard_config(blocks: int) -> LayoutConfig:
    """The shape that examples use: 2 layers, pages of 16 tokens, keys and values apart, 16 KiB per block and layer."""
    return LayoutConfig(blocks)
