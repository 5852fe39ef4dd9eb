"""Known contents for blocks: reproducible, and different from block to block where the pattern can be."""

import random
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.physical.layout import PhysicalLayout


@dataclass(frozen=True, slots=True)
class FillPattern:
    """What `fill_blocks` writes; make one with `sequential`, `constant` or `random`."""

    kind: Literal["sequential", "constant", "random"]
    value: int = 0

    @staticmethod
    def sequential(start: int = 0) -> "FillPattern":
        """64-bit counters that run on from layer to layer and block to block, so no two parts are equal."""
        return FillPattern("sequential", start)

    @staticmethod
    def constant(value: int) -> "FillPattern":
        """The same byte everywhere: fast, but it cannot show that two blocks were swapped."""
        if not 0 <= value <= 255:
            raise ConfigurationError(f"constant fill {value} is not a byte")
        return FillPattern("constant", value)

    @staticmethod
    def random(seed: int = 0) -> "FillPattern":
        """Bytes of a generator seeded with `seed` and the place of the part; the same on every machine."""
        return FillPattern("random", seed)

    def part(self, index: int, length: int) -> bytes:
        """`length` bytes for the part (one layer of one block) with this running number in its layout."""
        if self.kind == "constant":
            return bytes((self.value,)) * length
        if self.kind == "random":
            return random.Random(f"{self.value}:{index}").randbytes(length)
        words = -(-length // 8)
        first = self.value + index * words
        return array("Q", range(first, first + words)).tobytes()[:length]


def fill_blocks(layout: PhysicalLayout, ids: Iterable[int], pattern: FillPattern) -> None:
    """Write the pattern into all layers of these blocks; the content follows from pattern, block id and layer."""
    config = layout.config
    for block in ids:
        for layer in range(config.layers):
            part = pattern.part(block * config.layers + layer, config.layer_bytes)
            layout.write_layer(block, layer, part)
