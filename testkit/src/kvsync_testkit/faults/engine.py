"""A model of one engine process: a small cache that publishes what it does and keeps it as ground truth.

It is no scheduler (that is the mock engine's business): it makes every kind of event a stream can carry, at random and
close together, in a cache of a few blocks, so that evictions, copies, clears and re-stored chains happen within a
hundred batches. Truth is kept per sequence number, so a reader can be judged at any point of the stream, not only at
its end.
"""

import hashlib
import random
from collections import deque
from dataclasses import dataclass, field

import msgspec

from kvsync_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    Event,
    EventBatch,
    SetDigest,
    WireForm,
    digest_key,
    encode_batch,
)
from kvsync_testkit.checks import Row, Transition

BLOCK_SIZE = 4
GPU, CPU = "GPU", "CPU"


@dataclass(frozen=True, slots=True)
class Workload:
    """What the process does. Everything is drawn from the seed of the process."""

    capacity: int = 24
    """Blocks that the cache holds; the host tier holds half as many."""
    chains: int = 5
    """Number of conversations; they share prefixes."""
    longest: int = 6
    """Number of blocks of the longest prompt."""
    host_tier: bool = False
    """Evicted blocks may move to a host tier, whose events carry no tokens."""
    reports: bool = False
    """Some hits are reported again with a null parent (`kv_cache_report_mode: full`), which adds no copy."""
    clears: float = 0.03
    lost_batches: float = 0.0
    """Share of batches whose encoding fails: the sequence number is used up and the events are lost for ever."""
    poisoned_batches: float = 0.0
    """Share of batches that no reader can decode, live or replayed."""
    unknown_events: float = 0.0
    """Share of batches with an event of a type that no reader knows, which removes blocks."""
    lethal_batches: float = 0.0
    """Share of batches over which the process of the index ends, as often as it applies them."""
    second_rank: float = 0.0
    """Share of batches that another data-parallel rank sends on the same stream: it clears its own cache."""
    last_copy_only: bool = False
    """The removal of a device block is announced only when its last copy goes."""
    wire_version: str = "0.33.0"


@dataclass(slots=True)
class Published:
    """One batch and the table after it."""

    seq: int
    payload: bytes
    truth: dict[Row, int]
    digests: tuple[tuple[str, int, str], ...]
    """(medium, count, digest) of every tier that holds something."""
    removed: tuple[int, ...] = ()
    """Block hashes in its removal events."""
    lethal: bool = False
    """The process of the index ends over it."""
    cleared: bool = False
    """It says that the cache was cleared."""


@dataclass(slots=True)
class ModelProcess:
    """One life of an engine. Lives with equal salts make equal hashes."""

    name: str
    salt: int
    seed: str
    workload: Workload
    buffer_steps: int
    life: int = 0
    """How many processes of the same publisher came before."""
    born_s: float = 0.0
    published: dict[int, Published] = field(default_factory=dict)
    log: list[Transition] = field(default_factory=list)
    truth: dict[Row, int] = field(default_factory=dict)
    ever_stored: set[Row] = field(default_factory=set)
    next_seq: int = 0
    lost_seqs: int = 0
    """Sequence numbers whose events never reach a reader."""
    mixed: bool = False
    """A batch of another rank was published."""
    buffer: deque[tuple[int, bytes]] = field(init=False)
    parents: dict[int, int | None] = field(default_factory=dict)
    _gpu: dict[int, int] = field(default_factory=dict)
    """Hash -> copies, least recently used first."""
    _host: dict[int, None] = field(default_factory=dict)
    _digests: dict[str, SetDigest] = field(default_factory=lambda: {CPU: SetDigest(), GPU: SetDigest()})
    _rng: random.Random = field(init=False)
    _form: WireForm = field(init=False)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._form = WireForm.for_version(self.workload.wire_version)
        self.buffer = deque(maxlen=self.buffer_steps)

    @property
    def whole_history(self) -> bool:
        """A replay from 0 brings everything that was ever announced."""
        return not self.lost_seqs and (not self.buffer or self.buffer[0][0] == 0)

    def step(self, now: float) -> Published | None:
        """One engine step that changes something; None when its batch could not be encoded."""
        if self.workload.second_rank and self._rng.random() < self.workload.second_rank:
            return self._other_rank(now)
        events: list[Event] = []
        while not events:
            events = self._clear() if self._rng.random() < self.workload.clears else self._request()
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        if self._rng.random() < self.workload.lost_batches:
            self.lost_seqs += 1
            return None
        payload = encode_batch(EventBatch(self._wall(now, seq), events, 0), self._form)
        unknown = self.workload.unknown_events
        if unknown and self._gpu and self._rng.random() < unknown:
            self.lost_seqs += 1
            payload = self._trim(payload)
        if self._rng.random() < self.workload.poisoned_batches:
            self.lost_seqs += 1
            payload = b"\xc1" + payload
        digests = tuple((medium, found.count, found.hex()) for medium, found in self._digests.items() if found.count)
        lethal = bool(self.workload.lethal_batches) and self._rng.random() < self.workload.lethal_batches
        self.lost_seqs += lethal
        removed = [hashed for event in events if isinstance(event, BlockRemoved) for hashed in event.block_hashes]
        cleared = any(isinstance(event, AllBlocksCleared) for event in events)
        done = Published(seq, payload, dict(self.truth), digests, tuple(map(digest_key, removed)), lethal, cleared)
        self.published[seq] = done
        self.buffer.append((seq, payload))
        return done

    def _other_rank(self, now: float) -> Published:
        """Send a batch of another rank, which changes nothing in this cache."""
        self.mixed = True
        seq, self.next_seq = self.next_seq, self.next_seq + 1
        payload = encode_batch(EventBatch(self._wall(now, seq), [AllBlocksCleared()], 1), self._form)
        digests = tuple((medium, found.count, found.hex()) for medium, found in self._digests.items() if found.count)
        done = self.published[seq] = Published(seq, payload, dict(self.truth), digests)
        self.buffer.append((seq, payload))
        return done

    def _trim(self, payload: bytes) -> bytes:
        """Remove half of the blocks with an event of a type that is not in any version of the wire."""
        trimmed = list(self._gpu)[::2]
        for block_hash in trimmed:
            copies = self._gpu.pop(block_hash)
            for _ in range(1 if self.workload.last_copy_only else copies):
                self._drop(block_hash, GPU)
        ts, events, rank = msgspec.msgpack.decode(payload)
        return msgspec.msgpack.encode([ts, [*events, ["BlocksTrimmed", trimmed]], rank])

    def _wall(self, now: float, seq: int) -> float:
        """Return a time at which no other batch of any life is made."""
        return self.born_s * 1000 + now + seq * 1e-6

    def chain(self, number: int, length: int) -> list[tuple[int, list[int]]]:
        """Return hashes and tokens of a prompt. Chains 2n and 2n+1 share their first half, and all share block 0."""
        blocks: list[tuple[int, list[int]]] = []
        parent = self.salt
        for at in range(length):
            branch = 0 if at == 0 else number // 2 if at < length // 2 + 1 and at < 3 else number
            tokens = [(at * 64 + branch) * BLOCK_SIZE + offset for offset in range(BLOCK_SIZE)]
            digest = hashlib.blake2b(b"%d %d %d" % (parent, at, branch), digest_size=8).digest()
            block_hash = int.from_bytes(digest, "big")
            blocks.append((block_hash, tokens))
            parent = block_hash
        return blocks

    # -- what a step does -------------------------------------------------------------------------------------------

    def _request(self) -> list[Event]:
        """Serve a prompt: its resident prefix is a hit; the rest is stored after room was made for it."""
        rng, workload = self._rng, self.workload
        chain = self.chain(rng.randrange(workload.chains), rng.randint(1, workload.longest))
        hits = 0
        while hits < len(chain) and chain[hits][0] in self._gpu:
            hits += 1
        for block_hash, _ in chain[:hits]:
            self._gpu[block_hash] = self._gpu.pop(block_hash)
        if hits == len(chain):
            hits -= 1  # a fully cached, aligned prompt computes its last block again: a second copy
        events: list[Event] = []
        new = chain[hits:]
        events += self._evict(sum(self._gpu.values()) + len(new) - workload.capacity, {item[0] for item in chain})
        parent = chain[hits - 1][0] if hits else None
        if workload.reports and hits > 1 and rng.random() < 0.2:
            events.append(self._stored(chain[:hits], None, GPU))
        for at, (block_hash, _) in enumerate(new):
            self._gpu[block_hash] = self._gpu.pop(block_hash, 0) + 1
            self._hold(block_hash, GPU)
            self.parents[block_hash] = parent if at == 0 else new[at - 1][0]
        events.append(self._stored(new, parent, GPU))
        return events

    def _stored(self, blocks: list[tuple[int, list[int]]], parent: int | None, medium: str) -> BlockStored:
        tokens = [token for _, part in blocks for token in part]
        return BlockStored([item[0] for item in blocks], parent, tokens, BLOCK_SIZE, medium=medium)

    def _evict(self, count: int, keep: set[int]) -> list[Event]:
        """Free physical blocks, mostly the least recently used ones, with one event per hash."""
        events: list[Event] = []
        for _ in range(count):
            candidates = [block_hash for block_hash in self._gpu if block_hash not in keep]
            if not candidates:
                break
            victim = candidates[0] if self._rng.random() < 0.8 else self._rng.choice(candidates)
            self._gpu[victim] -= 1
            if self._gpu[victim] and self.workload.last_copy_only:
                continue
            events.append(BlockRemoved([victim], GPU))
            self._drop(victim, GPU)
            if not self._gpu[victim]:
                del self._gpu[victim]
                events += self._offload(victim)
        return events

    def _offload(self, block_hash: int) -> list[Event]:
        if not self.workload.host_tier or block_hash in self._host or self._rng.random() < 0.5:
            return []
        events: list[Event] = []
        if len(self._host) >= self.workload.capacity // 2:
            victim = next(iter(self._host))
            del self._host[victim]
            self._drop(victim, CPU)
            events.append(BlockRemoved([victim], CPU))
        self._host[block_hash] = None
        self._hold(block_hash, CPU)
        events.append(BlockStored([block_hash], None, [], 0, medium=CPU))
        return events

    def _clear(self) -> list[Event]:
        self._gpu.clear()
        self._host.clear()
        self.truth.clear()
        for digest in self._digests.values():
            digest.clear()
        self.log.append(Transition("cleared"))
        return [AllBlocksCleared()]

    def _hold(self, block_hash: int, medium: str) -> None:
        row = Row(block_hash, medium)
        if row not in self.truth:
            self._digests[medium].add(block_hash)
        # Of copies whose removal is not announced, no reader can keep count.
        self.truth[row] = 1 if self.workload.last_copy_only else self.truth.get(row, 0) + 1
        self.ever_stored.add(row)
        self.log.append(Transition("stored", row))

    def _drop(self, block_hash: int, medium: str) -> None:
        row = Row(block_hash, medium)
        self.log.append(Transition("removed", row))
        if self.truth[row] > 1:
            self.truth[row] -= 1
        else:
            del self.truth[row]
            self._digests[medium].discard(block_hash)
