"""The index core in pure Python: the reference for the native core, and what runs where that is not installed.

Every publisher keeps its own table from prefix key to residency. Publishers share only the keys of a query, which are
computed once for each block size in use.
"""

import struct
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from operator import itemgetter
from typing import Final

from kvsync_events import BlockRun, DecodeError, EventBatch, Hash, decode_batch
from kvsync_indexer.core.blocks import block_id, engine_hash, key_tag
from kvsync_indexer.core.chain import run_events
from kvsync_indexer.core.errors import LimitError, PublisherConflictError, QueryError, UnknownPublisherError
from kvsync_indexer.core.giving import GivingLock
from kvsync_indexer.core.groups import Plan, group_order
from kvsync_indexer.core.holdings import AppliedCounts, Slices
from kvsync_indexer.core.keys import MASK_64, identity_key, prompt_keys, token_bytes
from kvsync_indexer.core.matching import KeysBySize, matched_tiers, tier_counts
from kvsync_indexer.core.protocol import Applied, BlockRow, Context, CoreLimits, CoreStats, DigestRow, Match, Tokens
from kvsync_indexer.core.publisher import Publisher
from kvsync_indexer.core.snapshot import read_snapshot, snapshot_part, sorted_blocks, write_snapshot

_ROW_BYTES: Final = 515
"""Measured growth of the resident set per row: a Block with its dict and the entries that refer to it."""
_PUBLISHER_BYTES: Final = 4096
_ENDED: Final = object()


class PythonCore:
    """See `IndexCore` for what each method promises.

    What changes the core holds the writer's lock, and the lock that queries need within it. Long work that changes
    nothing holds the writer's lock only, so that queries are answered meanwhile.
    """

    name: Final = "python"

    def __init__(self, limits: CoreLimits | None = None, seed: int = 0) -> None:
        self._limits = limits or CoreLimits()
        self._seed = seed
        self._publishers: dict[str, Publisher] = {}
        self._writer = threading.Lock()
        self._lock = GivingLock()

    @property
    def seed(self) -> int:
        """What goes into every key, as 64 bits."""
        return self._seed & MASK_64

    def add_publisher(self, publisher: str, model: str) -> None:
        """Make the publisher known."""
        with self._writer, self._lock:
            known = self._publishers.get(publisher)
            if known is not None:
                if known.model != model:
                    raise PublisherConflictError(f"publisher {publisher} serves {known.model}, not {model}")
                return
            if len(self._publishers) >= self._limits.max_publishers:
                raise LimitError(f"one publisher over the limit of {self._limits.max_publishers}")
            self._publishers[publisher] = Publisher(publisher, model, self._seed, self._limits)

    def apply(self, publisher: str, payload: bytes) -> Applied:
        """Decode and apply one batch."""
        with self._writer:
            return self._apply(self._get(publisher), decode_batch(payload, self._limits.wire))

    def apply_many(self, publisher: str, payloads: Sequence[bytes], budget: int | None = None) -> Applied:
        """Apply payloads in order."""
        totals = [0] * len(Applied._fields)
        done = 0
        with self._writer:
            known = self._get(publisher)
            for at, payload in enumerate(payloads):
                try:
                    applied = self._apply(known, decode_batch(payload, self._limits.wire))
                except DecodeError as error:
                    raise DecodeError(f"batch {at + 1} of {len(payloads)}: {error}") from error
                except LimitError as error:
                    raise LimitError(f"batch {at + 1} of {len(payloads)}: {error}", at) from error
                totals = [total + more for total, more in zip(totals, applied, strict=True)]
                done += len(payload) // 64 + applied.cleared + applied.attached
                if budget is not None and done >= budget:
                    break
        return Applied(*totals)

    def apply_batch(self, publisher: str, batch: EventBatch) -> Applied:
        """Apply a decoded batch."""
        with self._writer:
            return self._apply(self._get(publisher), batch)

    def apply_runs(self, publisher: str, block_size: int, runs: Sequence[BlockRun]) -> Applied:
        """Apply block transitions without tokens."""
        with self._writer:
            known = self._get(publisher)
            known.check(EventBatch(0.0, list(run_events(block_size, runs))))
            counts: AppliedCounts = Counter()
            self._work(known.apply_runs(block_size, runs, counts))
            return Applied(**counts)

    def set_last_copy_only(self, publisher: str, on: bool) -> None:
        """Choose what a removal takes."""
        with self._writer, self._lock:
            self._get(publisher).last_copy_only = on

    def match(self, context: Context, tokens: Tokens, publishers: Collection[str] | None = None) -> list[Match]:
        """Who holds how much of the prompt."""
        raw = token_bytes(tokens, self._limits.max_query_tokens)
        with self._lock:
            keys: dict[int, list[int]] = {}

            def keys_of(size: int) -> list[int]:
                if size not in keys:
                    keys[size] = prompt_keys(context, raw, size, self._seed)
                return keys[size]

            matches = (_match_one(one, one.slots.plan(), keys_of) for one in self._asked(context.model, publishers))
            found = [match for match in matches if match is not None]
        found.sort(key=lambda match: (-match.tokens, match.publisher))
        return found

    def query_keys(self, context: Context, tokens: Tokens, block_size: int) -> bytes:
        """The prefix keys of a prompt."""
        if block_size <= 0:
            raise QueryError("block_size must be positive")
        raw = token_bytes(tokens, self._limits.max_query_tokens)
        keys = prompt_keys(context, raw, block_size, self._seed)
        return struct.pack(f"<{len(keys)}Q", *keys)

    def match_keys(
        self, model: str, block_size: int, keys: bytes, publishers: Collection[str] | None = None
    ) -> list[Match]:
        """Who holds how much of a chain of keys."""
        if len(keys) % 8:
            raise QueryError("keys must be 8 bytes each")
        return self._match_chain(model, block_size, struct.unpack(f"<{len(keys) // 8}Q", keys), publishers)

    def match_hashes(
        self, model: str, block_size: int, hashes: Sequence[Hash], publishers: Collection[str] | None = None
    ) -> list[Match]:
        """Who holds how much of a chain of identified blocks."""
        return self._match_chain(model, block_size, [identity_key(engine_hash(one)) for one in hashes], publishers)

    def _match_chain(
        self, model: str, block_size: int, keys: Sequence[int], publishers: Collection[str] | None
    ) -> list[Match]:
        found = []
        with self._lock:
            for known in self._asked(model, publishers):
                plan = known.slots.plan()
                if plan is not None and [size for size, _ in plan.rules] == [block_size]:
                    match = _match_one(known, plan, lambda _: keys)
                    if match is not None:
                        found.append(match)
        found.sort(key=lambda match: (-match.tokens, match.publisher))
        return found

    def remove_publisher(self, publisher: str) -> int:
        """Forget it."""
        with self._writer:
            with self._lock:
                known = self._publishers.pop(publisher, None)
            return 0 if known is None else self._forget(known)

    def clear_publisher(self, publisher: str) -> int:
        """Drop its blocks and what was learnt from its events."""
        with self._writer:
            return self._forget(self._get(publisher))

    def publishers(self) -> list[str]:
        """Names, sorted."""
        with self._lock:
            return sorted(self._publishers)

    def digest(self, publisher: str) -> list[DigestRow]:
        """Digests by tier and group."""
        with self._lock:
            known = self._get(publisher)
            rows = [
                DigestRow(medium, group, digest.count, digest.hex())
                for (medium, group), digest in zip(known.slots.by_number, known.slots.digests, strict=True)
                if digest.count
            ]
        return sorted(rows, key=lambda row: (row.medium.encode(), group_order(row.group_idx)))

    def dump(self, publisher: str) -> Iterator[BlockRow]:
        """Every resident block."""
        with self._writer:
            return iter(_rows(self._get(publisher)))

    def snapshot(self) -> bytes:
        """The whole state."""
        with self._writer:
            return write_snapshot(self._publishers, self._seed)

    def snapshot_part(self, publisher: str) -> bytes:
        """One publisher's part of it."""
        with self._writer:
            return snapshot_part(self._get(publisher))

    def restore(self, data: bytes) -> list[str]:
        """Replace the whole state."""
        publishers, seed = read_snapshot(data, self._limits)
        with self._writer, self._lock:
            self._publishers, self._seed = publishers, seed
        return sorted(publishers)

    def sizes(self, publisher: str) -> tuple[int, int]:
        """Resident blocks and orphans."""
        with self._lock:
            known = self._get(publisher)
            return known.rows, known.orphans.count

    def stats(self, publisher: str | None = None) -> CoreStats:
        """Sizes and counters."""
        with self._lock:
            chosen = list(self._publishers.values()) if publisher is None else [self._get(publisher)]
            blocks = sum(one.rows for one in chosen)
            keys: set[int] = set()
            for one in chosen:
                keys.update(one.residency.masks)
            return CoreStats(
                publishers=len(chosen),
                blocks=blocks,
                orphans=sum(one.orphans.count for one in chosen),
                keys=len(keys),
                bytes_estimate=blocks * _ROW_BYTES + len(chosen) * _PUBLISHER_BYTES,
                conflicts=sum(one.conflicts for one in chosen),
                refused=sum(one.refused for one in chosen),
                too_many_groups=sum(one.slots.has_too_many_groups() for one in chosen),
                work=sum(one.cleared_rows + one.slots.work for one in chosen),
            )

    def _asked(self, model: str, names: Collection[str] | None) -> Iterator[Publisher]:
        """The publishers of the model, of all or of these names."""
        for name in self._publishers if names is None else set(names):
            known = self._publishers.get(name)
            if known is not None and known.model == model:
                yield known

    def _get(self, publisher: str) -> Publisher:
        known = self._publishers.get(publisher)
        if known is None:
            raise UnknownPublisherError(f"no publisher named {publisher}")
        return known

    def _apply(self, publisher: Publisher, batch: EventBatch) -> Applied:
        publisher.check(batch)
        counts: AppliedCounts = Counter()
        self._work(publisher.apply(batch, counts))
        return Applied(**counts)

    def _forget(self, publisher: Publisher) -> int:
        with self._lock:
            dropped, freeing = publisher.rows, publisher.forget()
        self._work(freeing)
        return dropped

    def _work(self, slices: Slices) -> None:
        """Do work that changes the core; between two slices queries are answered."""
        while True:
            with self._lock:
                if next(slices, _ENDED) is _ENDED:
                    return
            self._lock.give_way()


def _match_one(publisher: Publisher, plan: Plan | None, keys_of: KeysBySize) -> Match | None:
    if plan is None:
        return None
    tiers = matched_tiers(plan, publisher.residency.masks, keys_of)
    if not tiers:
        return None
    return Match(publisher.name, len(tiers), len(tiers) * plan.block_size, plan.block_size, tier_counts(tiers))


def _rows(publisher: Publisher) -> list[BlockRow]:
    """The rows, sorted. An attached block's parent is the smallest hash whose key has the tag that the block keeps."""
    by_tag: dict[int, int] = {}
    ordered = sorted_blocks(publisher)
    for _, _, ident in reversed(ordered):
        key = publisher.blocks[ident].prefix_key
        if key is not None:
            by_tag[key_tag(key)] = ident
    rows = []
    for hashed, _, ident in ordered:
        block = publisher.blocks[ident]
        parent: Hash | None = block.parent
        if block.prefix_key is not None and block.parent_tag:
            above = by_tag.get(block.parent_tag)
            parent = None if above is None else _raw_hash(publisher, above)
        for slot, copies in block.copies.items():
            medium, group = publisher.slots.by_number[slot]
            key = block.prefix_key
            row = BlockRow(_raw_hash(publisher, ident), parent, medium, group, copies, key is not None, key)
            rows.append(((hashed, medium.encode(), group_order(group)), row))
    return [row for _, row in sorted(rows, key=itemgetter(0))]


def _raw_hash(publisher: Publisher, ident: int) -> Hash:
    """The hash of a block as it was sent."""
    return publisher.raw_hashes.get(ident, block_id(ident, publisher.blocks[ident].size_number))
