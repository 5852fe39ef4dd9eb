"""Where one publisher's stream stands: the next sequence number, and proof of what was applied before it.

A sequence number alone cannot tell a process from its successor that has already overtaken it. So the digests of the
last applied payloads are kept: a number seen again with other bytes is another process (payloads carry the wall time
at which they were made, so two processes do not send equal bytes).
"""

from collections.abc import Callable
from enum import Enum, auto

from xxhash import xxh3_64_intdigest

REORDER = 8
"""Batches that may come out of order at most (TCP never reorders; proxies and fault injection do)."""


class Verdict(Enum):
    """What a sequence number with its payload is, relative to what was applied."""

    NEXT = auto()
    AHEAD = auto()
    DUPLICATE = auto()
    """Applied already, the same bytes."""
    LATE = auto()
    """From a hole that was given up, or just before the first one applied; now it would be out of order."""
    UNKNOWN = auto()
    """Before what the ring remembers."""
    OTHER = auto()
    """A number already applied, with other bytes: another process."""


class Position:
    """Sequence bookkeeping within one incarnation of a publisher."""

    __slots__ = ("_digest", "_digests", "_ring", "_seqs", "base_seq", "hole", "known", "next_seq")

    def __init__(self, ring: int, digest: Callable[[bytes], int] = xxh3_64_intdigest) -> None:
        self._digest = digest
        self._ring = ring
        self.reset()

    def reset(self) -> None:
        """A new incarnation: nothing is known of it."""
        self._seqs = [-1] * self._ring
        self._digests = [0] * self._ring
        self.known = False
        """Something was applied, or the history is known to be empty."""
        self.next_seq = 0
        self.base_seq: int | None = None
        """First sequence number behind the present blocks."""
        self.hole: tuple[int, int] = (0, 0)
        """Last range of numbers given up, end exclusive."""

    @property
    def last_seq(self) -> int | None:
        """The highest applied sequence number."""
        return self.next_seq - 1 if self.known and self.next_seq else None

    def judge(self, seq: int, payload: bytes) -> Verdict:
        """Classify a batch; before anything is known the first one is next."""
        if seq == self.next_seq or not self.known:
            return Verdict.NEXT
        if seq > self.next_seq:
            return Verdict.AHEAD
        slot = seq % self._ring
        if self._seqs[slot] == seq:
            return Verdict.DUPLICATE if self._digests[slot] == self._digest(payload) else Verdict.OTHER
        base = self.base_seq
        late = self.hole[0] <= seq < self.hole[1] or (base is not None and base - REORDER <= seq < base)
        return Verdict.LATE if late else Verdict.UNKNOWN

    def accept(self, seq: int, payload: bytes) -> None:
        """Record that `seq` is handed to the core now. It may jump forward, never back."""
        slot = seq % self._ring
        self._seqs[slot] = seq
        self._digests[slot] = self._digest(payload)
        if self.base_seq is None:
            self.base_seq = seq
        self.next_seq = seq + 1
        self.known = True

    def accept_run(self, first: int, payloads: list[bytes]) -> None:
        """`accept` for consecutive batches that follow on."""
        seqs, digests, ring, digest = self._seqs, self._digests, self._ring, self._digest
        for seq, payload in enumerate(payloads, first):
            slot = seq % ring
            seqs[slot] = seq
            digests[slot] = digest(payload)
        if self.base_seq is None:
            self.base_seq = first
        self.next_seq = first + len(payloads)

    def rewind(self, seq: int) -> None:
        """`seq` and what followed were not applied after all."""
        for slot, held in enumerate(self._seqs):
            if held >= seq:
                self._seqs[slot] = -1
        self.next_seq = seq

    def skip_to(self, seq: int) -> None:
        """Give up the numbers before `seq`; blocks are rebuilt from there."""
        self.hole = (self.next_seq, seq)
        self.next_seq = seq
        self.base_seq = None

    def tail(self) -> list[tuple[int, int]]:
        """Remembered (sequence, digest) pairs in order, for a snapshot."""
        pairs = sorted(zip(self._seqs, self._digests, strict=True))
        return [pair for pair in pairs if pair[0] >= 0]

    def restore(self, next_seq: int, base_seq: int | None, tail: list[tuple[int, int]]) -> None:
        """Continue from a snapshot."""
        self.reset()
        for seq, digest in tail[-self._ring :]:
            self._seqs[seq % self._ring] = seq
            self._digests[seq % self._ring] = digest
        self.known = True
        self.next_seq = next_seq
        self.base_seq = base_seq
