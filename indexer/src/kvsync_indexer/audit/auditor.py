"""When and whom to compare, and the verdicts.

The digests of the hashes are compared first. Where they are equal, the content of the blocks is compared, once for each
state of the index; where they differ, both are. While an engine works, its table runs ahead of its events. A difference
of hashes therefore counts only if the engine was idle and the index had applied the last batch that the engine
published; otherwise the verdict is `inconclusive`. The content of a block that both sides hold does not change, so a
difference there always counts.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable

from kvsync_indexer.api import AuditReport, PublisherAudit, Verdict
from kvsync_indexer.audit.comparing import (
    Comparison,
    SlotKey,
    compare_blocks,
    differing_slots,
    engine_digests,
    index_digests,
)
from kvsync_indexer.audit.engine import EngineClient, EngineDigest
from kvsync_indexer.core import UnknownPublisherError
from kvsync_indexer.errors import AuditError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.prediction import Predictions, cache_counters

POLL_S = 0.05
"""Pause before an engine that was not quiet is compared again."""
CONCURRENCY = 16
"""Publishers that are compared at the same time."""


class Auditor:
    """Compares publishers with their engines. Use it in one event loop, and `close` it there."""

    def __init__(
        self,
        ingest: Ingest,
        *,
        predictions: Predictions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        debug_token: str | None = None,
    ) -> None:
        """`debug_token` is the bearer token of the engines' debug endpoints."""
        self._ingest = ingest
        self.predictions = predictions or Predictions()
        self._monotonic = monotonic
        self._engines = EngineClient(2 * CONCURRENCY, debug_token)
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self.verdicts: Counter[str] = Counter()
        self.last: dict[str, PublisherAudit] = {}
        """The latest verdict on each publisher."""
        self._compared: dict[str, tuple[tuple[object, ...], int]] = {}
        """By publisher: the state whose content was found equal, and the blocks that were compared."""

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
            elif audit.verdict == "different" and audit.extra and not audit.missing and not audit.other_content:
                await self._report_false_hits(audit)
        current = {link.spec.name for link in self._ingest.links()}
        self.predictions.keep(current)
        self.last = {name: audit for name, audit in self.last.items() if name in current}
        self._compared = {name: state for name, state in self._compared.items() if name in current}
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
        await self._engines.close()

    async def _mark_complete(self, name: str) -> None:
        link = self._ingest.link(name)
        if link is not None and link.machine.incomplete:
            await asyncio.wrap_future(self._ingest.call(link.machine.complete))

    async def _report_false_hits(self, audit: PublisherAudit) -> None:
        """The index holds more than the engine, as it does if copies are counted whose removal is not announced."""
        link = self._ingest.link(audit.publisher)
        if link is not None:
            evidence = f"an audit found {audit.extra} blocks that the engine no longer holds"
            call = self._ingest.call(lambda: link.follower.false_hits(evidence, self._monotonic()))
            await asyncio.wrap_future(call)

    async def _one(self, link: PublisherLink, deadline: float) -> PublisherAudit:
        async with self._gate:
            if link.spec.debug_url is None:
                return await self._predicted(link)
            try:
                return await self._compare(link, link.spec.debug_url, deadline)
            except AuditError as error:
                return _verdict(link, "unreachable", str(error))
            except UnknownPublisherError:
                return _verdict(link, "inconclusive", "the publisher was removed meanwhile")

    async def _predicted(self, link: PublisherLink) -> PublisherAudit:
        """Without a table to compare: how predictions turned out, and the engine's own hit ratio."""
        audit = _verdict(link, "no_ground_truth", "the publisher has no debug_url")
        totals = self.predictions.totals.get(link.spec.name)
        if totals is not None and totals.requests:
            audit.predicted_requests = totals.requests
            audit.prediction_error = round(totals.error, 6)
        if link.spec.http_url is not None:
            try:
                counters = cache_counters(await self._engines.metrics(link.spec.http_url))
            except AuditError as error:
                audit.detail += f"; {error}"
                return audit
            if counters is not None and counters[1]:
                audit.engine_hit_ratio = round(counters[0] / counters[1], 6)
        return audit

    async def _compare(self, link: PublisherLink, url: str, deadline: float) -> PublisherAudit:
        """Compare until the two are equal, the difference is certain, or `deadline` has passed."""
        name, rank = link.spec.name, link.spec.rank
        while True:
            before = link.machine.position.last_seq
            engine = await self._engines.digest(url)
            mine = index_digests(self._ingest.core.digest(name))
            theirs = engine_digests(engine.digests, rank)
            if mine == theirs and link.machine.trusted:
                audit = await self._compare_content(link, url, (before, link.machine.standing.incarnation, mine))
                break
            published = engine.seq.get(str(rank))
            caught_up = link.machine.trusted and (before if before is not None else -1) == (
                -1 if published is None else published
            )
            sure = engine.quiet and caught_up and link.machine.position.last_seq == before
            if sure or self._monotonic() >= deadline:
                audit = _verdict(link, "different" if sure else "inconclusive", _why(engine, link, published))
                _add(audit, await self._look(link, url, differing_slots(mine, theirs)))
                break
            await asyncio.sleep(POLL_S)
        audit.quiet = engine.quiet
        audit.engine_blocks = sum(count for count, _ in theirs.values())
        audit.index_blocks = sum(count for count, _ in mine.values())
        audit.missing = sum(slot.missing for slot in audit.slots)
        audit.extra = sum(slot.extra for slot in audit.slots)
        audit.other_content = sum(slot.other_content for slot in audit.slots)
        if audit.verdict == "different":
            audit.differences = audit.missing + audit.extra + audit.other_content
        return audit

    async def _compare_content(self, link: PublisherLink, url: str, state: tuple[object, ...]) -> PublisherAudit:
        """The verdict on a publisher whose hashes are equal; `state` is what the index holds at this moment."""
        known = self._compared.get(link.spec.name)
        if known is None or known[0] != state:
            try:
                found = await self._look(link, url, [])
            except AuditError as error:
                return _verdict(link, "equal", f"only hashes were compared: {error}")
            if found.slots:
                audit = _verdict(link, "different", "hashes are equal, but blocks have other contexts or tokens")
                _add(audit, found)
                return audit
            known = self._compared[link.spec.name] = (state, found.compared)
        audit = _verdict(link, "equal", "")
        audit.compared_content = known[1]
        if not known[1] and state[-1]:
            audit.detail = "only hashes were compared: the engine does not report the context of its blocks"
        return audit

    async def _look(self, link: PublisherLink, url: str, slots: list[SlotKey]) -> Comparison:
        """Compare the hashes of `slots`, and the content of all blocks."""
        core, spec = self._ingest.core, link.spec
        theirs = await self._engines.blocks(url, spec.rank)
        return await asyncio.to_thread(
            lambda: compare_blocks(core.dump(spec.name), theirs, slots, model=spec.model, seed=core.seed)
        )


def _add(audit: PublisherAudit, found: Comparison) -> None:
    audit.slots, audit.compared_content = found.slots, found.compared


def _verdict(link: PublisherLink, verdict: Verdict, detail: str) -> PublisherAudit:
    machine = link.machine
    return PublisherAudit(
        publisher=link.spec.name,
        verdict=verdict,
        detail=detail,
        state=str(machine.state),
        incomplete=machine.incomplete,
    )


def _why(engine: EngineDigest, link: PublisherLink, published: int | None) -> str:
    """Why the two sides were not found equal, in one line."""
    if not link.machine.trusted:
        return f"the index is {link.machine.state}: {link.machine.reason}"
    if not engine.quiet:
        return "the engine is not quiet"
    if link.machine.position.last_seq != published:
        return f"the engine has published batch {published}, the index applied {link.machine.position.last_seq}"
    return "digests differ"
