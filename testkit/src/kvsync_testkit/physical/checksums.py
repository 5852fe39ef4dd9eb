"""Proof that the right bytes arrived: digests taken at the source, by position, and compared at the destination.

Positions and not block ids identify a block, because a transfer gives it another id on the other side. The digest of
each layer is kept apart, so that a partial (layer-wise) transfer can be checked and a failure names its layer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from kvsync_testkit.errors import ChecksumError, ConfigurationError
from kvsync_testkit.physical.fill import FillPattern, fill_blocks
from kvsync_testkit.physical.layout import PhysicalLayout


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One layer of one block that is not what was captured at its position."""

    position: int
    block: int
    layer: int

    def __str__(self) -> str:
        return f"position {self.position} (block {self.block}), layer {self.layer}"


@dataclass(frozen=True, slots=True)
class TransferChecksums:
    """Digests by position and layer."""

    digests: tuple[tuple[bytes, ...], ...]

    @classmethod
    def capture(cls, layout: PhysicalLayout, ids: Iterable[int]) -> "TransferChecksums":
        """The digests of these blocks as they are now."""
        layers = range(layout.config.layers)
        return cls(tuple(tuple(_digest(layout.read_layer(block, layer)) for layer in layers) for block in ids))

    @classmethod
    def fill_and_capture(
        cls, layout: PhysicalLayout, ids: Sequence[int], pattern: FillPattern | None = None
    ) -> "TransferChecksums":
        """Fill these blocks (by default with the sequential pattern) and take their digests."""
        fill_blocks(layout, ids, pattern or FillPattern.sequential())
        return cls.capture(layout, ids)

    def mismatches(
        self, layout: PhysicalLayout, ids: Sequence[int], layers: Iterable[int] | None = None
    ) -> list[Mismatch]:
        """Where the blocks `ids` of `layout`, in order, differ from the captured ones; `layers` None means all.

        Raises:
            ConfigurationError: the number of blocks is not the number captured.
        """
        if len(ids) != len(self.digests):
            raise ConfigurationError(f"{len(ids)} blocks are compared with the checksums of {len(self.digests)}")
        wanted = range(layout.config.layers) if layers is None else sorted(set(layers))
        return [
            Mismatch(position, block, layer)
            for position, block in enumerate(ids)
            for layer in wanted
            if _digest(layout.read_layer(block, layer)) != self.digests[position][layer]
        ]

    def verify_against(self, layout: PhysicalLayout, ids: Sequence[int], layers: Iterable[int] | None = None) -> None:
        """Assert that the blocks `ids` of `layout` hold, in order, the captured bytes.

        Raises:
            ChecksumError: naming the first difference and how many there are.
            ConfigurationError: the number of blocks is not the number captured.
        """
        found = self.mismatches(layout, ids, layers)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise ChecksumError(f"the bytes at {found[0]} are not those captured{more}")


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
