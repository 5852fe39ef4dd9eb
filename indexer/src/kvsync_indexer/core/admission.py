"""The hard limits of a publisher, checked before anything of a batch is applied."""

from kvsync_events import BlockStored, EventBatch
from kvsync_indexer.core.errors import LimitError
from kvsync_indexer.core.groups import Slot, medium_of
from kvsync_indexer.core.protocol import MAX_MEDIUM_CHARS, MAX_SLOTS
from kvsync_indexer.core.slots import Slots


def check_batch(batch: EventBatch, publisher: str, slots: Slots, rows: int, max_blocks: int) -> None:
    """Raise LimitError if applying the batch could exceed a hard limit of a publisher with these slots and rows.

    Removals and repeats within the batch are not taken into account.
    """
    stored = 0
    new_slots: set[Slot] = set()
    for event in batch.events:
        if not isinstance(event, BlockStored):
            continue
        stored += len(event.block_hashes)
        if slots.find(event.medium, event.group_idx) is None:
            medium = medium_of(event.medium)
            if len(medium) > MAX_MEDIUM_CHARS:
                raise LimitError(f"medium of {len(medium)} characters, over the limit of {MAX_MEDIUM_CHARS}")
            new_slots.add((medium, event.group_idx))
    if rows + stored > max_blocks:
        raise LimitError(f"{publisher} holds {rows} blocks and stores {stored} more, over the limit of {max_blocks}")
    if len(slots) + len(new_slots) > MAX_SLOTS:
        raise LimitError(
            f"{publisher} uses {len(slots)} pairs of medium and group and names {len(new_slots)} more, over the limit "
            f"of {MAX_SLOTS}"
        )
