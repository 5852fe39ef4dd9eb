"""Blocks from one layout to another: the layouts and the storage may be of different kinds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvsync_testkit.errors import TransferError
from kvsync_testkit.physical.layout import PhysicalLayout, distinct


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """A copy that is known to fit: which block goes where, and which layers of it."""

    pairs: tuple[tuple[int, int], ...]
    layers: tuple[int, ...]
    bytes: int


def plan_copy(
    src: PhysicalLayout,
    src_ids: Iterable[int],
    dst: PhysicalLayout,
    dst_ids: Iterable[int],
    layers: Iterable[int] | None = None,
) -> CopyPlan:
    """Check a copy before any byte moves; `layers` None means all of them.

    Raises:
        TransferError: the shapes differ, the numbers of blocks differ, a destination occurs twice, or a block or
            layer is out of range.
    """
    if src.config.shape != dst.config.shape:
        raise TransferError(f"blocks of shape {src.config.shape} do not fit a layout of shape {dst.config.shape}")
    sources, targets = list(src_ids), distinct(dst_ids, "the destination")
    if len(sources) != len(targets):
        raise TransferError(f"{len(sources)} blocks cannot be copied to {len(targets)}")
    wanted = tuple(range(src.config.layers)) if layers is None else tuple(sorted(set(layers)))
    for layer in wanted or (0,):
        for layout, ids in ((src, sources), (dst, targets)):
            for block in ids:
                layout.locate(block, layer)
    size = len(sources) * len(wanted) * src.config.layer_bytes
    return CopyPlan(tuple(zip(sources, targets, strict=True)), wanted, size)


def copy_blocks(
    src: PhysicalLayout,
    src_ids: Sequence[int],
    dst: PhysicalLayout,
    dst_ids: Sequence[int],
    *,
    layers: Iterable[int] | None = None,
) -> int:
    """Copy blocks by position: `src_ids[i]` to `dst_ids[i]`. Returns the number of bytes copied.

    All source blocks of a layer are read before any is written, so a copy within one layout may overlap itself.

    Raises:
        TransferError: as `plan_copy`; nothing was copied.
    """
    plan = plan_copy(src, src_ids, dst, dst_ids, layers)
    for layer in plan.layers:
        parts = [src.read_layer(block, layer) for block, _ in plan.pairs]
        for (_, block), part in zip(plan.pairs, parts, strict=True):
            dst.write_layer(block, layer, part)
    return plan.bytes
