"""A worker: the bytes of its shard of every block, in host memory and on disk."""

import random
from collections.abc import Sequence

from kvsync_testkit.managers.tiers import Tier
from kvsync_testkit.physical import LayoutConfig, LayoutKind, PhysicalLayout, StorageKind, copy_blocks


class InstanceWorker:
    """The layouts of one worker.

    Attributes:
        index: Its number within the instance; the worker of the same number on the other side has the same shard.
        g2: Host blocks, in the storage the pair was built with.
        g3: Disk blocks.
    """

    def __init__(
        self, index: int, config: LayoutConfig, kind: LayoutKind, storage: StorageKind, disk_blocks: int
    ) -> None:
        self.index = index
        self.g2 = PhysicalLayout(config, kind, storage)
        try:
            self.g3 = PhysicalLayout(config.with_blocks(disk_blocks), kind, StorageKind.DISK)
        except BaseException:
            self.g2.close()
            raise

    def layout(self, tier: Tier) -> PhysicalLayout:
        """The layout of G2 or G3."""
        return self.g3 if tier is Tier.G3 else self.g2

    def write(self, tier: Tier, block_id: int, block_hash: bytes, seed: int) -> None:
        """Fill a block with bytes that follow from its hash, this worker and the seed, in whichever tier it lies."""
        layout = self.layout(tier)
        for layer in range(layout.config.layers):
            generator = random.Random(f"{seed}:{block_hash.hex()}:{self.index}:{layer}")
            layout.write_layer(block_id, layer, generator.randbytes(layout.config.layer_bytes))

    def stage(self, disk_ids: Sequence[int], host_ids: Sequence[int]) -> None:
        """Copy blocks from disk to host memory, by position."""
        copy_blocks(self.g3, disk_ids, self.g2, host_ids)

    def close(self) -> None:
        """Give memory and files back."""
        self.g2.close()
        self.g3.close()
