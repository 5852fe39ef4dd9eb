"""Digests that several replicas had at the same position of one publisher's stream.

The replicas are never asked at the same moment, and while an engine works each answer has another position. What each
replica said at its last few positions is therefore kept, and the newest position that all of them share decides.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from kvsync_indexer.api import DigestAnswer

Slots: TypeAlias = Mapping[tuple[str, int | None], tuple[int, str]]
"""Number of blocks and digest in hex, by tier and group."""

KEPT = 64
"""Positions that are remembered for each replica."""


class Comparison(NamedTuple):
    """What the replicas held at one position."""

    position: int | None
    """Sequence number of the last batch that each of them had applied; None before the first one."""
    slots: tuple[Slots, ...]

    @property
    def equal(self) -> bool:
        """Whether all of them held the same hashes."""
        return all(held == self.slots[0] for held in self.slots)

    def blocks(self) -> list[int]:
        """Number of blocks in each replica."""
        return [sum(count for count, _ in held.values()) for held in self.slots]


class Positions:
    """What each of `replicas` replicas said of one publisher."""

    def __init__(self, replicas: int) -> None:
        self._said: list[dict[int | None, Slots]] = [{} for _ in range(replicas)]

    def add(self, replica: int, answer: DigestAnswer) -> None:
        """Take an answer. Only those of a publisher that is followed completely (`live`) count."""
        if answer.state != "live":
            return
        said = self._said[replica]
        said.pop(answer.last_seq, None)  # the newest answer comes last, whichever position it has
        said[answer.last_seq] = {(row.medium, row.group_idx): (row.count, row.digest) for row in answer.digests}
        if len(said) > KEPT:
            said.pop(next(iter(said)))

    def latest(self) -> Comparison | None:
        """The comparison at the newest position that all replicas share; None if there is none yet."""
        for position in reversed(self._said[0]):
            if all(position in said for said in self._said):
                return Comparison(position, tuple(said[position] for said in self._said))
        return None
