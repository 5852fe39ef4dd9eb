"""Where one publisher's stream stands: the next sequence number, and proof of what was applied before it.

A sequence number alone cannot tell a process from a successor that has already overtaken it. So the digests of the last
applied payloads are kept: a number that is seen again with other bytes comes from another process. (A payload carries
the wall time at which it was made, so two processes do not send equal bytes.)
"""

from collections.abc import Callable
from enum import Enum, auto

from xxhash import xxh3_64_intdigest

REORDER = 8
"""How far out of order batches may arrive: TCP never reorders them, but proxies and fault injection do."""


class Continuity(Enum):
    """How a batch relates to what was applied."""

    NEXT = auto()
    AHEAD = auto()
    DUPLICATE = auto()
    """Its number was applied already, with the same bytes."""
    LATE = auto()
    """It belongs into a hole that was given up, or just before the first batch applied: applying it now is too late."""
    UNKNOWN = auto()
    """Its number lies before what is remembered."""
    OTHER = auto()
    """Its number was applied already, with other bytes: another process sent it."""


class Position:
    """Sequence bookkeeping within one incarnation of a publisher."""

    __slots__ = ("_digest", "_digests", "_ring", "_seqs", "base_seq", "hole", "known", "next_seq")

    def __init__(self, ring: int, digest: Callable[[bytes], int] = xxh3_64_intdigest) -> None:
        self._digest = digest
        self._ring = ring
        self.reset()

    def reset(self) -> None:
        """Begin a new incarnation, of which nothing is known."""
        self._seqs = [-1] * self._ring
        self._digests = [0] * self._ring
        self.known = False
        """Something was applied, or the history is known to be empty."""
        self.next_seq = 0
        self.base_seq: int | None = None
        """The first batch that the present blocks come from, None if nothing was applied since they were dropped."""
        self.hole: tuple[int, int] = (0, 0)
        """The range of numbers that was given up last, its end excluded."""

    @property
    def last_seq(self) -> int | None:
        """The highest applied sequence number, None if nothing was applied."""
        return self.next_seq - 1 if self.known and self.next_seq else None

    def judge(self, seq: int, payload: bytes) -> Continuity:
        """Classify a batch. Before anything is known, every batch is the next one."""
        if seq == self.next_seq or not self.known:
            return Continuity.NEXT
        if seq > self.next_seq:
            return Continuity.AHEAD
        slot = seq % self._ring
        if self._seqs[slot] == seq:
            return Continuity.DUPLICATE if self._digests[slot] == self._digest(payload) else Continuity.OTHER
        base = self.base_seq
        late = self.hole[0] <= seq < self.hole[1] or (base is not None and base - REORDER <= seq < base)
        return Continuity.LATE if late else Continuity.UNKNOWN

    def accept(self, seq: int, payload: bytes) -> None:
        """Record that a batch is being applied. Its number may jump forward, never back."""
        slot = seq % self._ring
        self._seqs[slot] = seq
        self._digests[slot] = self._digest(payload)
        if self.base_seq is None:
            self.base_seq = seq
        self.next_seq = seq + 1
        self.known = True

    def accept_run(self, first: int, payloads: list[bytes]) -> None:
        """Record consecutive batches, the first of which is the next one; the same as `accept` for each, and faster."""
        seqs, digests, ring, digest = self._seqs, self._digests, self._ring, self._digest
        for seq, payload in enumerate(payloads, first):
            slot = seq % ring
            seqs[slot] = seq
            digests[slot] = digest(payload)
        if self.base_seq is None:
            self.base_seq = first
        self.next_seq = first + len(payloads)

    def rewind(self, seq: int) -> None:
        """Take back `seq` and everything behind it: the core did not apply them."""
        for slot, held in enumerate(self._seqs):
            if held >= seq:
                self._seqs[slot] = -1
        self.next_seq = seq

    def skip_to(self, seq: int) -> None:
        """Give up the numbers before `seq`; the blocks are rebuilt from there."""
        self.hole = (self.next_seq, seq)
        self.next_seq = seq
        self.base_seq = None

    def tail(self) -> list[tuple[int, int]]:
        """Return the remembered (sequence number, digest) pairs in order, for a snapshot."""
        pairs = sorted(zip(self._seqs, self._digests, strict=True))
        return [pair for pair in pairs if pair[0] >= 0]

    def restore(self, next_seq: int, base_seq: int | None, tail: list[tuple[int, int]]) -> None:
        """Continue from a snapshot, of which `tail` are the remembered pairs."""
        self.reset()
        for seq, digest in tail[-self._ring :]:
            self._seqs[seq % self._ring] = seq
            self._digests[seq % self._ring] = digest
        self.known = True
        self.next_seq = next_seq
        self.base_seq = base_seq
