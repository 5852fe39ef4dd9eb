"""What the checkers are told: rows of a block table, entries of a history, answers of an index."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from kvsync_events import Hash, digest_key


class Row(NamedTuple):
    """One resident block: the 64 bits of its hash that count, its tier and its cache group."""

    key: int
    medium: str
    group_idx: int | None = None

    def __str__(self) -> str:
        group = "" if self.group_idx is None else f"/{self.group_idx}"
        return f"{self.key:016x}@{self.medium}{group}"


Rows: TypeAlias = Mapping[Row, int]
"""A block table: row -> copies."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    invariant: str
    """`I1` … `I13`, or `C1`."""
    publisher: str
    detail: str
    evidence: tuple[object, ...] = field(default=(), compare=False, repr=False)
    """The facts that break the promise on their own, in order of time; each has a readable `str`."""

    def __str__(self) -> str:
        return f"{self.invariant} {self.publisher}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Holding:
    """How many copies of a block the engine has and the index, or other sides that are compared."""

    row: Row
    copies: tuple[int, ...]
    sides: tuple[str, ...] = ("engine", "index")

    def __str__(self) -> str:
        return f"{self.row}: " + ", ".join(
            f"{copies} in the {side}" for side, copies in zip(self.sides, self.copies, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry of an engine's append-only transition log; `row` is None for a clear of everything."""

    kind: Literal["stored", "removed", "cleared"]
    row: Row | None = None
    medium: str | None = None
    """Of a clear: the only tier it emptied, None for all."""

    def __str__(self) -> str:
        what = self.row if self.row is not None else self.medium or "everything"
        return f"the engine {self.kind} {what}"


@dataclass(frozen=True, slots=True)
class AppliedBatch:
    """The index applied a batch."""

    at_s: float
    publisher: str
    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: batch {self.seq} of epoch {self.epoch} applied"


@dataclass(frozen=True, slots=True)
class Forgotten:
    """The index dropped all blocks of a publisher, and may build them again from any sequence number."""

    at_s: float
    publisher: str


@dataclass(frozen=True, slots=True)
class Answer:
    """A match: the engine's hashes of the queried blocks in order, and how many the index says are there."""

    publisher: str
    query: tuple[int, ...]
    matched: int
    group_idx: int | None = None

    def __str__(self) -> str:
        return f"{self.matched} of {len(self.query)} blocks matched ({' '.join(f'{key:016x}' for key in self.query)})"


@dataclass(frozen=True, slots=True)
class TrustSample:
    """At `at_s` the publisher was matched or not, and its last true sign of life was at `heard_s`."""

    at_s: float
    publisher: str
    matched: bool
    heard_s: float

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {'' if self.matched else 'not '}matched, last heard at {self.heard_s:.3f} s"


@dataclass(frozen=True, slots=True)
class Sample:
    """A measured number, e.g. of frames queued, bytes of memory or open descriptors."""

    at_s: float
    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.name} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Something of a publisher was seen, such as "routed to" or "blocks in the index"."""

    at_s: float
    publisher: str
    what: str

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: {self.what}"


def parse_rows(lines: Iterable[str | bytes]) -> dict[Row, int]:
    """NDJSON of `/debug/kv/blocks` or `/v1/publishers/{name}/blocks` as a block table.

    A hash may be an integer, signed or not, or the hex of a digest. Raises ValueError with the number of a bad line.
    """
    rows: dict[Row, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            block_hash: Hash = bytes.fromhex(entry["hash"]) if isinstance(entry["hash"], str) else int(entry["hash"])
            medium = entry.get("medium") or "GPU"
            row = Row(digest_key(block_hash), medium.upper(), entry.get("group_idx"))
            rows[row] = rows.get(row, 0) + int(entry.get("copies", 1))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"line {number} is no block: {error!r}") from None
    return rows
