"""Guard blocks: neighbours of a transfer that must come out of it unchanged."""

from collections.abc import Iterable
from dataclasses import dataclass

from kvsync_testkit.errors import GuardError
from kvsync_testkit.physical.checksums import TransferChecksums
from kvsync_testkit.physical.fill import FillPattern
from kvsync_testkit.physical.layout import PhysicalLayout


@dataclass(frozen=True, slots=True)
class GuardBlocks:
    """The ids of the guard blocks and the digests of what they hold."""

    ids: tuple[int, ...]
    checksums: TransferChecksums


def create_guard_blocks(layout: PhysicalLayout, ids: Iterable[int], pattern: FillPattern | None = None) -> GuardBlocks:
    """Fill these blocks with bytes that no other pattern of the kit produces, and remember them.

    Put them in front of and behind the destination of a transfer: a write that is too long, or lands in the wrong
    block, changes one of them.
    """
    guarded = tuple(ids)
    return GuardBlocks(
        guarded, TransferChecksums.fill_and_capture(layout, guarded, pattern or FillPattern.random(seed=0x6A12D))
    )


def verify_guard_blocks_unchanged(layout: PhysicalLayout, guards: GuardBlocks) -> None:
    """Assert that no guard block changed.

    Raises:
        GuardError: naming every guard block and layer that was written.
    """
    changed = guards.checksums.mismatches(layout, guards.ids)
    if changed:
        places = "; ".join(f"block {one.block}, layer {one.layer}" for one in changed)
        raise GuardError(f"guard blocks were written: {places}")
