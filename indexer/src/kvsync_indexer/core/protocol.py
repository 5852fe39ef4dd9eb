"""What an index core is: the Protocol both implementations keep, and the values that cross it.

A core holds, for any number of publishers (one publisher is one event stream: a pod, or a rank of it), which blocks are
resident, and answers who holds how much of a prompt. It is passive: no clock, no socket, no thread; whoever calls it
decides which publishers can be trusted. Every method may be called from any thread; each takes the core's one lock.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from kvsync_events import DEFAULT_LIMITS as WIRE_DEFAULTS
from kvsync_events import EventBatch, Hash
from kvsync_events import Limits as WireLimits

Tokens: TypeAlias = Sequence[int] | bytes | bytearray | memoryview
"""Token ids: a list, a buffer of 32-bit integers (`array('I')`, NumPy), or little-endian bytes, 4 a token."""

MAX_COPIES = 65_535
"""Copies of one block in one tier and group are counted up to here; more are not told apart."""
MAX_SLOTS = 64
"""(medium, group) pairs one publisher may use."""
MAX_BLOCK_SIZES = 8
"""Block sizes one cache group of a publisher may use; tokens of further sizes are not read."""
MAX_MEDIUM_CHARS = 64
"""Characters of a medium's name."""


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Hard limits; each is a count. What happens at each limit is said beside it."""

    max_publishers: int = 4096
    """`add_publisher` raises LimitError."""
    max_blocks: int = 8_000_000
    """Resident blocks of one publisher (rows of its dump). A payload whose stored hashes could take the publisher over
    it (removals and repeats in the same payload not considered) raises LimitError and changes nothing."""
    max_orphans: int = 262_144
    """Blocks of one publisher that wait for a parent. A further one is left out and counted in `Applied.refused`."""
    max_query_tokens: int = 4 * 1024 * 1024
    """Tokens of a query; a longer one raises QueryError."""
    wire: WireLimits = field(default=WIRE_DEFAULTS)
    """Limits of the payload itself; DecodeError."""

    def __post_init__(self) -> None:
        for name in ("max_publishers", "max_blocks", "max_orphans", "max_query_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Context:
    """What must be equal, besides the tokens, for a block to be the same block."""

    model: str
    lora: str | None = None
    """The adapter's name, or its id in digits for engines that send only the id; None is the base model."""
    cache_salt: str | None = None
    extra_keys: tuple[tuple[Any, ...] | None, ...] | None = None
    """Keys a block, as the engine forms them: entry i belongs to block i and is None or e.g. `((mm_id, offset),)`."""


class Applied(NamedTuple):
    """What one payload did. Counts are of block hashes unless they say otherwise."""

    events: int = 0
    """Events understood."""
    stored: int = 0
    """Hashes in stored events, repeats included, those refused not."""
    removed: int = 0
    """Hashes of which one copy was taken away."""
    cleared: int = 0
    """Blocks dropped by AllBlocksCleared."""
    orphans: int = 0
    """Blocks that began to wait for their parent, or for their tokens."""
    attached: int = 0
    """Waiting blocks that found it."""
    unknown_removed: int = 0
    """Removals of what was not resident: no-ops."""
    unknown_events: int = 0
    """Events whose tag nobody knows."""
    refused: int = 0
    """Blocks left out at `max_orphans`."""


class Match(NamedTuple):
    """How much of a prompt one publisher holds."""

    publisher: str
    blocks: int
    """Length of the contiguous prefix."""
    tokens: int
    block_size: int
    tiers: dict[str, int]
    """Blocks of that prefix by the nearest tier that holds each, nearest first."""


class BlockRow(NamedTuple):
    """One resident block of a publisher in one tier and group."""

    hash: Hash
    """The engine's: unsigned 64 bits, or the bytes it sent."""
    parent: Hash | None
    """The engine's hash of the parent: for an attached block only while the publisher holds the parent."""
    medium: str
    group_idx: int | None
    copies: int
    attached: bool
    """False: waits for its parent or tokens, and is never matched."""


@dataclass(frozen=True, slots=True)
class DigestRow:
    """Digest of the set of hashes resident in one tier and group, orphans included (`kvsync_events.SetDigest`)."""

    medium: str
    group_idx: int | None
    count: int
    digest_hex: str


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Sizes now, and counters since the publisher was added (or the core was made)."""

    publishers: int
    blocks: int
    """Resident (publisher, medium, group, hash)."""
    orphans: int
    """Hashes that wait for a parent or tokens."""
    keys: int
    """Distinct own keys that something resident stands for."""
    bytes_estimate: int
    conflicts: int = 0
    """A hash was stored again with other content; the first content was kept."""
    refused: int = 0
    """Blocks left out at `max_orphans`."""
    extra: Mapping[str, int] = field(default_factory=dict)
    """Sizes that only one implementation has."""


@runtime_checkable
class IndexCore(Protocol):
    """The index core. Publishers are independent of each other: nothing one sends changes what another holds."""

    @property
    def name(self) -> str:
        """`python` or `native`."""

    def add_publisher(self, publisher: str, model: str) -> None:
        """Make the publisher known; again with the same model is a no-op. Raises PublisherConflictError, LimitError."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Decode one batch and apply it, all or nothing. Raises DecodeError, LimitError, UnknownPublisherError."""

    def apply_many(self, publisher: str, payloads: Sequence[bytes]) -> Applied:
        """Apply payloads in order and add up; the first that fails raises, those before it stay applied.

        The message of its DecodeError or LimitError starts with the payload's place, `batch 2 of 3: ...`; a LimitError
        has it as `batch` too, counted from 0.
        """

    def apply_batch(self, publisher: str, batch: EventBatch) -> Applied:
        """Apply a batch that is already decoded. Raises LimitError, UnknownPublisherError."""

    def match(self, context: Context, tokens: Tokens, publishers: Collection[str] | None = None) -> Sequence[Match]:
        """Publishers that hold at least the first block: most tokens first, then by name. Raises QueryError.

        `publishers` restricts the answer; names that are not known are ignored.
        """

    def query_keys(self, context: Context, tokens: Tokens, block_size: int) -> bytes:
        """The own keys of a prompt's full blocks, little-endian u64 each, for `match_keys`. Raises QueryError.

        Good for any core with the same seed: a router computes them once and asks several indexes.
        """

    def match_keys(
        self, model: str, block_size: int, keys: bytes, publishers: Collection[str] | None = None
    ) -> Sequence[Match]:
        """As `match`, for one block size and keys computed before. Raises QueryError."""

    def remove_publisher(self, publisher: str) -> int:
        """Forget it; returns the blocks dropped (0 if it was not known)."""

    def clear_publisher(self, publisher: str) -> int:
        """Drop its blocks and all that was learnt from its events; it stays known. Raises UnknownPublisherError."""

    def publishers(self) -> list[str]:
        """Names, sorted."""

    def digest(self, publisher: str) -> list[DigestRow]:
        """One row for each tier and group with something resident, sorted. Raises UnknownPublisherError."""

    def dump(self, publisher: str) -> Iterator[BlockRow]:
        """Every resident block, by hash, medium, group; as of the call. Raises UnknownPublisherError."""

    def snapshot(self) -> bytes:
        """The whole state. Equal states give equal bytes, whichever implementation holds them."""

    def restore(self, data: bytes) -> list[str]:
        """Replace the whole state; returns the publishers' names. Raises SnapshotError and then changes nothing."""

    def stats(self, publisher: str | None = None) -> CoreStats:
        """Of one publisher, or of all. Raises UnknownPublisherError."""
