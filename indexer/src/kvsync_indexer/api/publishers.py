"""`GET /v1/publishers` and what is below it: the publishers, and the blocks and digests of one of them."""

import msgspec


class PublisherRow(msgspec.Struct, frozen=True, kw_only=True):
    """One publisher. Counters run since it was added. Only the name and the state must be there to decode a row."""

    name: str
    pod: str = ""
    model: str = ""
    rank: int = 0
    http_rank: int | None = None
    """Number of the rank in `X-data-parallel-rank`; null if it is `rank`."""
    state: str
    reason: str = ""
    """Why the publisher is in this state."""
    epoch: str | None = None
    """Identity of the engine process: what discovery knows of it (pod UID, restart count and rank), or `stream`, then
    `#` and the incarnation. It changes with every restart that discovery or the stream shows."""
    last_seq: int | None = None
    """Sequence number of the last batch that was applied."""
    lag: int = 0
    """Batches that are known to exist and have not been applied yet."""
    age_s: float | None = None
    """Upper bound of the seconds since the last sign of life; null if there was none yet."""
    gaps: int = 0
    """Times that sequence numbers were missing."""
    resyncs: int = 0
    """Times that the blocks were dropped and rebuilt."""
    decode_errors: int = 0
    blocks: int = 0
    """Resident blocks."""
    incomplete: bool = False
    """The publisher may hold more than the index knows."""
    ready: bool = True
    """False: the pod takes no traffic. Its events are followed, but it is never matched."""
    incarnation: int = 0
    """How often the stream has begun anew, for example because the engine restarted."""
    lag_s: float | None = None
    """Seconds between the making and the arrival of the last live batch, by the clocks of both machines."""
    block_size: int | None = None
    """Tokens per block; null until the first block arrives."""
    orphans: int = 0
    """Blocks that wait for their parent."""
    missed: int = 0
    """Sequence numbers that were missing when a gap opened."""
    restarts: int = 0
    """Restarts that the stream itself showed."""
    epochs: int = 0
    """New epochs announced by discovery."""
    truncations: int = 0
    """Times that the replay buffer did not reach back far enough."""
    quarantines: int = 0
    stales: int = 0
    disconnects: int = 0
    duplicates: int = 0
    """Batches that arrived again and were ignored."""
    replays: int = 0
    """Replays that were requested."""
    replay_failures: int = 0
    replay_lies: int = 0
    """Answers of the replay server that contradict the stream."""
    buffered: int = 0
    """Live batches that wait for a replay to end."""
    buffer_dropped: int = 0
    """Live batches that did not fit into the buffer during a replay."""
    transitions: int = 0
    """Changes of state."""
    batches: int = 0
    """Batches that were applied."""
    events: int = 0
    """Events that were applied."""
    unknown_events: int = 0
    """Events of an unknown type."""
    unknown_removed: int = 0
    """Removals of blocks that were not resident."""
    set_aside: int = 0
    """Times that a batch was left out because an earlier process of the index ended while it applied it."""
    refused: int = 0
    """Blocks that were left out because a limit was reached."""
    engine_version: str | None = None
    """What the engine's `/version` says; null while it is not known."""
    removals: str = "each_copy"
    """Which removals the engine announces for a block that has several copies: `each_copy`, or only the `last_copy`."""
    endpoint: str = ""
    """ZMQ endpoint of the event stream."""
    replay_endpoint: str | None = None
    http_url: str | None = None
    """Base URL of the engine's OpenAI API."""
    debug_url: str | None = None
    """Base URL of the engine's `/debug` endpoints."""
    source: str = ""
    """What named the publisher: `file` or `kubernetes`."""


class PublishersAnswer(msgspec.Struct):
    """The answer of `GET /v1/publishers`."""

    publishers: list[PublisherRow]


class BlockLine(msgspec.Struct):
    """One line of `GET /v1/publishers/{name}/blocks`: a resident block.

    Hashes are the engine's own: an unsigned 64-bit integer, or a hex string if the engine sends bytes.
    """

    hash: int | str
    parent: int | str | None
    medium: str
    group_idx: int | None
    copies: int
    """How often the block was stored and not yet removed."""
    attached: bool
    """False: the block waits for its parent and is never matched."""


class DigestRow(msgspec.Struct):
    """Digest of the blocks of one rank, tier and group. The engine's `/debug/kv/digest` has rows of the same form."""

    rank: int
    medium: str
    count: int
    """Number of blocks."""
    digest: str
    """128 bits in hex, independent of the order of the blocks."""
    group_idx: int | None = None


class DigestAnswer(msgspec.Struct):
    """The answer of `GET /v1/publishers/{name}/digest`."""

    publisher: str
    digests: list[DigestRow]
    last_seq: int | None
    """Sequence number of the last batch that was applied."""
    state: str
