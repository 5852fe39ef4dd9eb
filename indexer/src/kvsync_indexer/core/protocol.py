"""What an index core is: the Protocol of both implementations, and the values that its methods take and return.

A core holds the resident blocks of any number of publishers and answers which of them hold how much of a prompt. A
publisher is one event stream: that of a pod, or of one rank of a pod. The core is passive (no clock, no socket, no
thread), and its caller decides which publishers can be trusted. Every method may be called from any thread.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

from kvsync_events import DEFAULT_LIMITS as WIRE_DEFAULTS
from kvsync_events import BlockRun, EventBatch, Hash
from kvsync_events import Limits as WireLimits

Tokens: TypeAlias = Sequence[int] | bytes | bytearray | memoryview
"""Token ids: a list, a buffer of 32-bit integers (`array('I')`, NumPy), or little-endian bytes, 4 per token."""

MAX_COPIES = 65_535
"""Copies of one block in one tier and group are counted up to this number."""
MAX_SLOTS = 64
"""Pairs of medium and group that one publisher may use."""
MAX_BLOCK_SIZES = 8
"""Block sizes that one cache group of a publisher may use; tokens of further sizes are not read."""
MAX_CHAIN_SIZES = 16
"""Block sizes that all groups of a publisher may use together; tokens of further sizes are not read."""
MAX_SPARSE_BLOCKS = 262_144
"""Blocks, in every block size of the publisher, that are read per batch to find out what the hashes of sparse events
are; the hashes of further such events stay unknown."""
MAX_MATCH_GROUPS = 32
"""Cache groups with tokens that one publisher may have in a match; a publisher with more matches nothing."""
MAX_MATCH_SIZES = 8
"""Block sizes that the groups of one publisher may have in a match; a publisher with more matches nothing."""
MAX_MEDIUM_CHARS = 64
"""Characters in the name of a medium."""


@dataclass(frozen=True, slots=True)
class CoreLimits:
    """Hard limits. Each is a count, with what happens at the limit."""

    max_publishers: int = 4096
    """`add_publisher` raises LimitError."""
    max_blocks: int = 8_000_000
    """Resident blocks of one publisher (rows of its dump). A payload whose stored hashes could exceed it raises
    LimitError and changes nothing; removals and repeats in the same payload are not taken into account."""
    max_orphans: int = 262_144
    """Blocks of one publisher whose content is unknown. A further one is left out and counted in `Applied.refused`."""
    max_remembered: int = 32_768
    """Removed blocks of one publisher whose content is kept for events that name them by hash only (24 bytes per block
    in the native core, about 250 in the Python core). The oldest is forgotten."""
    max_query_tokens: int = 4 * 1024 * 1024
    """Tokens of a query; a longer one raises QueryError."""
    wire: WireLimits = field(default=WIRE_DEFAULTS)
    """Limits of a single payload; exceeding them raises DecodeError."""

    def __post_init__(self) -> None:
        for name in ("max_publishers", "max_blocks", "max_orphans", "max_remembered", "max_query_tokens"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")


class Context(NamedTuple):
    """What must be equal, besides the tokens, for a block to be the same block.

    A tuple, because the native core reads it for every query and should not look names up.
    """

    model: str
    lora: str | None = None
    """The adapter's name, or its number in digits for engines that send only the number; None for the base model."""
    cache_salt: str | None = None
    extra_keys: tuple[tuple[Any, ...] | None, ...] | None = None
    """Keys per block, as the engine forms them: entry i belongs to block i and is None or e.g. `((mm_id, offset),)`."""


class Applied(NamedTuple):
    """What payloads did. Counts are of block hashes unless they say otherwise."""

    events: int = 0
    """Events understood."""
    stored: int = 0
    """Hashes in stored events, including repeats, without those that were refused."""
    removed: int = 0
    """Hashes of which one copy was removed."""
    cleared: int = 0
    """Blocks dropped by AllBlocksCleared."""
    orphans: int = 0
    """Blocks that began to wait for their parent or for their tokens."""
    attached: int = 0
    """Blocks that no longer wait, because their content became known."""
    unknown_removed: int = 0
    """Removals of hashes that were not resident, which are ignored."""
    unknown_events: int = 0
    """Events of unknown tags, which are ignored. They may have removed blocks, so the publisher should be suspected."""
    refused: int = 0
    """Blocks that were left out at `max_orphans`."""
    payloads: int = 0
    """Payloads applied; fewer than were given to `apply_many` if its budget was used up."""


class Match(NamedTuple):
    """How much of a prompt one publisher holds."""

    publisher: str
    blocks: int
    """Length of the contiguous prefix, in blocks of `block_size`."""
    tokens: int
    block_size: int
    """Tokens per block. Of a publisher whose groups have several block sizes, the largest of a full-attention group."""
    tiers: dict[str, int]
    """Blocks of that prefix by the nearest tier that holds them, nearest tier first."""


class BlockRow(NamedTuple):
    """One resident block of a publisher in one tier and group."""

    hash: Hash
    """The hash as the engine sent it: an unsigned integer of 64 bits, or bytes."""
    parent: Hash | None
    """The parent's hash as the engine sent it. An attached block has one only while the publisher holds the parent."""
    medium: str
    group_idx: int | None
    copies: int
    attached: bool
    """False for a block that waits for its parent or its tokens and is never matched."""
    key: int | None
    """The prefix key of an attached block (`kvsync_indexer.core.keys`): its model, context and tokens as one number."""


@dataclass(frozen=True, slots=True)
class DigestRow:
    """The digest of the hashes resident in one tier and group, orphans included (`kvsync_events.SetDigest`)."""

    medium: str
    group_idx: int | None
    count: int
    digest_hex: str


@dataclass(frozen=True, slots=True)
class CoreStats:
    """Current sizes, and counters since the publisher was added or the core was made."""

    publishers: int
    blocks: int
    """Distinct combinations of publisher, medium, group and hash that are resident."""
    orphans: int
    """Hashes that wait for their parent or their tokens."""
    keys: int
    """Distinct prefix keys of resident blocks."""
    bytes_estimate: int
    conflicts: int = 0
    """How often a resident hash was stored again with other content; the first content was kept."""
    refused: int = 0
    """Blocks that were left out at `max_orphans`."""
    too_many_groups: int = 0
    """Publishers that match nothing, because they have more than `MAX_MATCH_GROUPS` cache groups with tokens or more
    than `MAX_MATCH_SIZES` block sizes."""
    work: int = 0
    """Steps that clears and plans took: entries of tables that were visited, and slots and groups that were read. It
    grows in proportion to the bytes that were applied."""
    extra: Mapping[str, int] = field(default_factory=dict)
    """Sizes that only one of the implementations has."""


@runtime_checkable
class IndexCore(Protocol):
    """The index core. Publishers are independent: nothing that one sends changes what another holds."""

    @property
    def name(self) -> str:
        """`python` or `native`."""

    @property
    def seed(self) -> int:
        """What goes into every key."""

    def add_publisher(self, publisher: str, model: str) -> None:
        """Make the publisher known. Adding it again with the same model is a no-op.

        Raises PublisherConflictError and LimitError.
        """

    def set_last_copy_only(self, publisher: str, on: bool) -> None:
        """Say whether the publisher announces the removal of a device block only when its last copy goes.

        Then copies on the device are not counted; otherwise each removal takes one, which is how publishers begin. A
        snapshot does not contain this, so it has to be said again after `restore`. Raises UnknownPublisherError.
        """

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Decode one batch and apply it as a whole or not at all.

        Raises DecodeError, LimitError and UnknownPublisherError.
        """

    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied:
        """Apply payloads in order and add up what they did.

        With a `budget`, the call stops after the payload with which the work done reaches it, and
        `Applied.payloads` says how many were applied, at least one. The work of a payload is the number of its bytes
        divided by 64, and the blocks that it cleared or attached. The core's lock is free between two calls.

        The first payload that fails raises, and those before it stay applied. The message of its DecodeError or
        LimitError starts with its position, `batch 2 of 3: ...`; a LimitError also has it as `batch`, counted from 0.
        """

    def apply_batch(self, publisher: str, batch: EventBatch) -> Applied:
        """Apply a batch that is already decoded; raises LimitError and UnknownPublisherError."""

    def apply_runs(self, publisher: str, block_size: int, runs: Sequence[BlockRun]) -> Applied:
        """Apply what an engine in the same process reports: blocks whose hashes identify their content.

        A publisher is followed either by payloads or by runs; only `match_hashes` finds blocks of runs. Raises
        LimitError and UnknownPublisherError.
        """

    def match(self, context: Context, tokens: Tokens, publishers: Collection[str] | None = None) -> Sequence[Match]:
        """The publishers that hold a prefix of the prompt, most tokens first, then by name; raises QueryError.

        `publishers` restricts the answer to these names; unknown names are ignored.
        """

    def query_keys(self, context: Context, tokens: Tokens, block_size: int) -> bytes:
        """The prefix keys of a prompt's full blocks, little-endian u64 each, for `match_keys`; raises QueryError.

        They are valid for every core with the same seed, so a router can compute them once and ask several indexes.
        """

    def match_keys(
        self, model: str, block_size: int, keys: bytes, publishers: Collection[str] | None = None
    ) -> Sequence[Match]:
        """As `match`, for one block size and keys from `query_keys`; raises QueryError.

        Publishers whose groups have several block sizes are left out, because a match needs every group.
        """

    def match_hashes(
        self, model: str, block_size: int, hashes: Sequence[Hash], publishers: Collection[str] | None = None
    ) -> Sequence[Match]:
        """As `match`, for a prompt whose blocks are given as the hashes that `apply_runs` uses."""

    def remove_publisher(self, publisher: str) -> int:
        """Forget the publisher; returns how many blocks were dropped, 0 if it was not known."""

    def clear_publisher(self, publisher: str) -> int:
        """Drop the blocks of a publisher, which stays known, and what was learnt from its events.

        Returns how many blocks were dropped. Raises UnknownPublisherError.
        """

    def publishers(self) -> list[str]:
        """Names, sorted."""

    def digest(self, publisher: str) -> list[DigestRow]:
        """One row per tier and group that hold something, sorted; raises UnknownPublisherError."""

    def dump(self, publisher: str) -> Iterator[BlockRow]:
        """Every block resident at the time of the call, sorted by hash, medium and group.

        Raises UnknownPublisherError.
        """

    def snapshot(self) -> bytes:
        """The whole state. Equal states give equal bytes in both implementations.

        Queries are answered while a snapshot is made; calls that change the core wait.
        """

    def snapshot_part(self, publisher: str) -> bytes:
        """One publisher's part of a snapshot, for `join_snapshot`; raises UnknownPublisherError."""

    def restore(self, data: bytes) -> list[str]:
        """Replace the whole state, and return the publishers' names.

        Raises SnapshotError, and then the state is unchanged.
        """

    def sizes(self, publisher: str) -> tuple[int, int]:
        """The publisher's resident blocks and orphans, in constant time; raises UnknownPublisherError."""

    def stats(self, publisher: str | None = None) -> CoreStats:
        """Sizes and counters of one publisher, or of the whole core; raises UnknownPublisherError."""
