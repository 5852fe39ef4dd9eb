"""KV cache blocks as real bytes in real memory, and the means to prove where those bytes went.

- `config`: the shape of a block; `layout`: where each block and layer lies, block by block or layer by layer
- `regions`, `memory`, `files`, `shared`: system, page-locked, disk and shared memory behind one interface
- `fill`, `checksums`, `guards`: known contents, proof that they arrived, proof that nothing else was written
- `copying`: blocks from one layout to another, whatever the kinds of both
"""

from kvsync_testkit.physical.checksums import Mismatch, TransferChecksums
from kvsync_testkit.physical.config import LayoutConfig, standard_config
from kvsync_testkit.physical.copying import copy_blocks, plan_copy
from kvsync_testkit.physical.fill import FillPattern, fill_blocks
from kvsync_testkit.physical.guards import GuardBlocks, create_guard_blocks, verify_guard_blocks_unchanged
from kvsync_testkit.physical.layout import LayoutBuilder, LayoutKind, PhysicalLayout, create_layout
from kvsync_testkit.physical.regions import Region, StorageKind
from kvsync_testkit.physical.storage import open_region, storage_unavailable

__all__ = [
    "FillPattern",
    "GuardBlocks",
    "LayoutBuilder",
    "LayoutConfig",
    "LayoutKind",
    "Mismatch",
    "PhysicalLayout",
    "Region",
    "StorageKind",
    "TransferChecksums",
    "copy_blocks",
    "create_guard_blocks",
    "create_layout",
    "fill_blocks",
    "open_region",
    "plan_copy",
    "standard_config",
    "storage_unavailable",
    "verify_guard_blocks_unchanged",
]
