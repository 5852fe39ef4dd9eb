"""The auditor: does the index hold exactly what the engine's own table says?

First the digests (one line a rank, group and medium), then, only where they differ, the blocks. The engine's table runs
ahead of its events while it works, so a difference counts as one only if the engine was quiet and the index had applied
its last published batch; otherwise the answer is `inconclusive`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Literal, TypeAlias, TypeVar

import aiohttp
import msgspec

from kvsync_events import digest_key
from kvsync_indexer.core import IndexCore, UnknownPublisherError
from kvsync_indexer.errors import AuditError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.prediction import Predictions, cache_counters

HTTP_TIMEOUT_S = 30.0
POLL_S = 0.05
EXAMPLES = 5
CONCURRENCY = 16

_T = TypeVar("_T")
Verdict: TypeAlias = Literal["equal", "different", "inconclusive", "unreachable", "no_ground_truth"]
SlotKey: TypeAlias = tuple[str, int | None]


class DigestEntry(msgspec.Struct):
    """One row of the engine's `/debug/kv/digest`."""

    rank: int
    medium: str
    count: int
    digest: str
    group_idx: int | None = None


class EngineDigest(msgspec.Struct):
    """The engine's `/debug/kv/digest`."""

    digests: list[DigestEntry]
    seq: dict[str, int | None] = {}
    quiet: bool = False


class EngineBlock(msgspec.Struct):
    """One line of the engine's `/debug/kv/blocks`, as far as it is compared."""

    hash: int | str
    medium: str = "GPU"
    group_idx: int | None = None
    rank: int = 0


class SlotDifference(msgspec.Struct):
    """One tier and group in which the two sides differ."""

    medium: str
    group_idx: int | None
    engine_blocks: int
    index_blocks: int
    missing: int
    """Resident in the engine, not in the index: hits that will be missed."""
    extra: int
    """In the index, not in the engine: false hits."""
    missing_examples: list[str] = []
    extra_examples: list[str] = []


class PublisherAudit(msgspec.Struct, kw_only=True):
    """The verdict on one publisher."""

    publisher: str
    verdict: Verdict
    detail: str = ""
    state: str = ""
    quiet: bool = False
    incomplete: bool = False
    engine_blocks: int = 0
    index_blocks: int = 0
    missing: int = 0
    extra: int = 0
    differences: int = 0
    """missing + extra, when the verdict is `different`; else 0."""
    slots: list[SlotDifference] = []
    predicted_requests: int = 0
    """Requests of which a router told what was predicted and what the engine reported."""
    prediction_error: float | None = None
    """Share of tokens predicted or cached that were wrong; null: nothing was reported."""
    engine_hit_ratio: float | None = None
    """The engine's own prefix-cache hits over queries; null: it does not say."""


class AuditReport(msgspec.Struct):
    """Every publisher asked about, and sums."""

    publishers: list[PublisherAudit]
    audited: int
    """Publishers with a verdict of equal or different."""
    blocks: int
    """Blocks in the engines' tables."""
    differences: int
    equal: bool
    """Every publisher asked about was audited and is equal."""
    seconds: float = 0.0


class Auditor:
    """Compares. Use inside one event loop."""

    def __init__(
        self,
        ingest: Ingest,
        *,
        predictions: Predictions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ingest = ingest
        self.predictions = predictions or Predictions()
        self._monotonic = monotonic
        self._session: aiohttp.ClientSession | None = None
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self.verdicts: Counter[str] = Counter()
        self.last: dict[str, PublisherAudit] = {}
        """The newest verdict on each publisher."""

    async def audit(self, names: Iterable[str] | None = None, *, wait_quiet_s: float = 0.0) -> AuditReport:
        """Audit the named publishers (None: all), waiting up to `wait_quiet_s` for engines to be quiet."""
        begun = self._monotonic()
        wanted = None if names is None else set(names)
        links = [link for link in self._ingest.links() if wanted is None or link.spec.name in wanted]
        audits = await asyncio.gather(*(self._one(link, begun + wait_quiet_s) for link in links))
        for audit in audits:
            self.verdicts[audit.verdict] += 1
            self.last[audit.publisher] = audit
            if audit.verdict == "equal":
                await self._mark_complete(audit.publisher)
        current = {link.spec.name for link in self._ingest.links()}
        self.predictions.keep(current)
        self.last = {name: audit for name, audit in self.last.items() if name in current}
        sure = [audit for audit in audits if audit.verdict in ("equal", "different")]
        return AuditReport(
            publishers=list(audits),
            audited=len(sure),
            blocks=sum(audit.engine_blocks for audit in sure),
            differences=sum(audit.differences for audit in sure),
            equal=all(audit.verdict == "equal" for audit in audits),
            seconds=round(self._monotonic() - begun, 6),
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _mark_complete(self, name: str) -> None:
        link = self._ingest.link(name)
        if link is not None and link.machine.incomplete:
            await asyncio.wrap_future(self._ingest.call(link.machine.complete))

    async def _one(self, link: PublisherLink, deadline: float) -> PublisherAudit:
        if link.spec.debug_url is None:
            async with self._gate:
                return await self._predicted(link)
        async with self._gate:
            try:
                return await self._compare(link, link.spec.debug_url, deadline)
            except AuditError as error:
                return self._verdict(link, "unreachable", str(error))
            except UnknownPublisherError:
                return self._verdict(link, "inconclusive", "the publisher was removed meanwhile")

    async def _predicted(self, link: PublisherLink) -> PublisherAudit:
        """Without a table to compare: how well predictions did, and what the engine says of its own cache."""
        audit = self._verdict(link, "no_ground_truth", "the publisher has no debug_url")
        totals = self.predictions.totals.get(link.spec.name)
        if totals is not None and totals.requests:
            audit.predicted_requests = totals.requests
            audit.prediction_error = round(totals.error, 6)
        if link.spec.http_url is not None:
            try:
                counters = cache_counters((await self._get(f"{link.spec.http_url}/metrics")).decode(errors="replace"))
            except AuditError as error:
                audit.detail += f"; {error}"
                return audit
            if counters is not None and counters[1]:
                audit.engine_hit_ratio = round(counters[0] / counters[1], 6)
        return audit

    def _verdict(self, link: PublisherLink, verdict: Verdict, detail: str) -> PublisherAudit:
        machine = link.machine
        return PublisherAudit(
            publisher=link.spec.name,
            verdict=verdict,
            detail=detail,
            state=str(machine.state),
            incomplete=machine.incomplete,
        )

    async def _compare(self, link: PublisherLink, url: str, deadline: float) -> PublisherAudit:
        """Compare until equal or sure; give up at `deadline`."""
        name, rank = link.spec.name, link.spec.rank
        while True:
            before = link.machine.position.last_seq
            engine = await self._engine_digest(url)
            mine = {(row.medium, row.group_idx): (row.count, row.digest_hex) for row in self._ingest.core.digest(name)}
            theirs = {
                (row.medium.upper(), row.group_idx): (row.count, row.digest)
                for row in engine.digests
                if row.rank == rank and row.count
            }
            if mine == theirs and link.machine.trusted:
                audit = self._verdict(link, "equal", "")
                break
            published = engine.seq.get(str(rank))
            caught_up = link.machine.trusted and (before if before is not None else -1) == (
                -1 if published is None else published
            )
            sure = engine.quiet and caught_up and link.machine.position.last_seq == before
            if sure or self._monotonic() >= deadline:
                audit = self._verdict(link, "different" if sure else "inconclusive", _why(engine, link, published))
                audit.slots = await self._slots(url, name, rank, _keys(mine, theirs))
                break
            await asyncio.sleep(POLL_S)
        audit.quiet = engine.quiet
        audit.engine_blocks = sum(count for count, _ in theirs.values())
        audit.index_blocks = sum(count for count, _ in mine.values())
        audit.missing = sum(slot.missing for slot in audit.slots)
        audit.extra = sum(slot.extra for slot in audit.slots)
        audit.differences = audit.missing + audit.extra if audit.verdict == "different" else 0
        return audit

    async def _slots(self, url: str, name: str, rank: int, keys: list[SlotKey]) -> list[SlotDifference]:
        """The blocks of the slots whose digests differ."""
        theirs: dict[SlotKey, dict[int, str]] = {key: {} for key in keys}
        for line in (await self._get(f"{url}/debug/kv/blocks?rank={rank}")).splitlines():
            if not line:
                continue
            block = _decode(line, EngineBlock, url)
            slot = theirs.get((block.medium.upper(), block.group_idx))
            if slot is not None and block.rank == rank:
                slot[_key_of(block.hash)] = str(block.hash)
        mine: dict[SlotKey, dict[int, str]] = {key: {} for key in keys}
        for row in await asyncio.to_thread(_dump, self._ingest.core, name):
            held = mine.get((row[0], row[1]))
            if held is not None:
                held[row[2]] = row[3]
        return [_difference(key, theirs[key], mine[key]) for key in keys]

    async def _engine_digest(self, url: str) -> EngineDigest:
        return _decode(await self._get(f"{url}/debug/kv/digest"), EngineDigest, url)

    async def _get(self, url: str) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2 * CONCURRENCY))
        try:
            async with asyncio.timeout(HTTP_TIMEOUT_S), self._session.get(url) as response:
                data = await response.read()
                if response.status != 200:
                    raise AuditError(f"{url}: HTTP {response.status}")
                return data
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise AuditError(f"{url}: {type(error).__name__}: {error}") from None


def _decode(data: bytes, kind: type[_T], url: str) -> _T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise AuditError(f"{url}: not what a debug endpoint answers: {error}") from None


def _dump(core: IndexCore, name: str) -> list[tuple[str, int | None, int, str]]:
    """(medium, group, 64-bit key, hash as text) of every resident block. Long: run it in a worker thread."""
    rows = []
    for row in core.dump(name):
        text = row.hash.hex() if isinstance(row.hash, bytes) else str(row.hash)
        rows.append((row.medium, row.group_idx, digest_key(row.hash), text))
    return rows


def _key_of(block_hash: int | str) -> int:
    """The 64 bits that count of a hash as JSON has it: a number, or the hex of what the engine sends as bytes."""
    try:
        return digest_key(block_hash if isinstance(block_hash, int) else bytes.fromhex(block_hash))
    except ValueError:
        raise AuditError(f"the engine names a block {block_hash!r:.80}, which is neither a number nor hex") from None


def _keys(mine: dict[SlotKey, tuple[int, str]], theirs: dict[SlotKey, tuple[int, str]]) -> list[SlotKey]:
    """Slots in which the digests differ, sorted."""
    slots = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    return sorted(slots, key=lambda key: (key[0], -1 if key[1] is None else key[1]))


def _difference(key: SlotKey, theirs: dict[int, str], mine: dict[int, str]) -> SlotDifference:
    missing = sorted(theirs.keys() - mine.keys())
    extra = sorted(mine.keys() - theirs.keys())
    return SlotDifference(
        medium=key[0],
        group_idx=key[1],
        engine_blocks=len(theirs),
        index_blocks=len(mine),
        missing=len(missing),
        extra=len(extra),
        missing_examples=[theirs[each] for each in missing[:EXAMPLES]],
        extra_examples=[mine[each] for each in extra[:EXAMPLES]],
    )


def _why(engine: EngineDigest, link: PublisherLink, published: int | None) -> str:
    """What kept the two sides apart, as one line."""
    if not link.machine.trusted:
        return f"the index is {link.machine.state}: {link.machine.reason}"
    if not engine.quiet:
        return "the engine is not quiet"
    if link.machine.position.last_seq != published:
        return f"the engine has published batch {published}, the index applied {link.machine.position.last_seq}"
    return "digests differ"
