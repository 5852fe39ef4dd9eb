"""Compares replicas publisher by publisher, and repairs those that differ from the engine.

Replicas that agree are taken to be right: `kvsync audit` without `--replicas` compares one index with the engines. If
replicas differ, each is audited against the engine, and the ones that the engine contradicts are asked to apply the
publisher's history again. An engine that shows no block table proves nobody wrong, so nothing is repaired then.
"""

import asyncio
import time
from collections.abc import Callable, Sequence

from kvsync.replicas.positions import Comparison, Positions
from kvsync.replicas.report import ReplicaAudit, ReplicaReport, ReplicaState
from kvsync_indexer.api import PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexRefusedError

POLL_S = 0.1
AT_ONCE = 16
"""Publishers that are compared at the same time."""


class ReplicaAuditor:
    """Compares `indexes`, of which there are at least two. Every method raises IndexClientError."""

    def __init__(
        self,
        indexes: Sequence[AsyncIndexClient],
        *,
        wait_s: float,
        repair: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait_s` is the longest time to wait for a common position, and again for that after a repair."""
        self._indexes = indexes
        self._wait_s = wait_s
        self._repair = repair
        self._monotonic = monotonic
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def audit(self, names: Sequence[str] = ()) -> ReplicaReport:
        """Compare the named publishers; none named: those of any replica."""
        answers = await asyncio.gather(*(index.publishers() for index in self._indexes))
        tables = [{row.name: row for row in rows} for rows in answers]
        wanted = sorted(set(names) or {name for table in tables for name in table})
        audits = await asyncio.gather(*(self._one(name, [table.get(name) for table in tables]) for name in wanted))
        return ReplicaReport(
            replicas=[index.url for index in self._indexes],
            publishers=list(audits),
            compared=sum(audit.verdict != "inconclusive" for audit in audits),
            differences=sum(audit.verdict == "different" for audit in audits),
            repaired=sum(audit.verdict == "repaired" for audit in audits),
            equal=all(audit.verdict in ("equal", "repaired") for audit in audits),
        )

    async def _one(self, name: str, rows: Sequence[PublisherRow | None]) -> ReplicaAudit:
        audit = ReplicaAudit(publisher=name, verdict="inconclusive", replicas=self._states(rows))
        absent = [index.url for index, row in zip(self._indexes, rows, strict=True) if row is None]
        if absent:
            audit.verdict, audit.detail = "different", f"not followed by {', '.join(absent)}"
            return audit
        async with self._gate:
            _take(audit, await self._compare(name))
            if audit.verdict == "different":
                await self._mend(audit, has_history=all(row is not None and row.replay_endpoint for row in rows))
        return audit

    def _states(self, rows: Sequence[PublisherRow | None]) -> list[ReplicaState]:
        states = []
        for index, row in zip(self._indexes, rows, strict=True):
            state = ReplicaState(url=index.url)
            if row is not None:
                state.state, state.blocks, state.incomplete = row.state, row.blocks, row.incomplete
            states.append(state)
        return states

    async def _compare(self, name: str) -> Comparison | None:
        """Ask until the replicas are equal at a common position or the time is over; the last comparison."""
        ends = self._monotonic() + self._wait_s
        positions = Positions(len(self._indexes))
        while True:
            answers = await asyncio.gather(*(index.digest(name) for index in self._indexes))
            for at, answer in enumerate(answers):
                positions.add(at, answer)
            found = positions.latest()
            if (found is not None and found.equal) or self._monotonic() >= ends:
                return found
            await asyncio.sleep(POLL_S)

    async def _mend(self, audit: ReplicaAudit, *, has_history: bool) -> None:
        """Find the replicas that the engine contradicts, and have them resynchronised."""
        name = audit.publisher
        reports = await asyncio.gather(*(index.audit([name], self._wait_s) for index in self._indexes))
        wrong = []
        for index, state, report in zip(self._indexes, audit.replicas, reports, strict=True):
            state.against_engine = report.publishers[0].verdict if report.publishers else "inconclusive"
            if state.against_engine == "different":
                wrong.append((index, state))
        if not wrong:
            audit.detail = "the engine contradicts none of them"
        elif not self._repair:
            audit.detail = f"the engine contradicts {', '.join(state.url for _, state in wrong)}"
        elif not has_history:
            audit.detail = "the publisher has no replay endpoint, so its history cannot be applied again"
        else:
            await asyncio.gather(*(self._resync(name, index, state) for index, state in wrong))
            _take(audit, await self._compare(name))
            if audit.verdict == "equal":
                audit.verdict = "repaired"
            elif audit.verdict == "different":
                audit.detail = "still different after a resync: the engine's history does not reach back far enough"

    async def _resync(self, name: str, index: AsyncIndexClient, state: ReplicaState) -> None:
        try:
            await index.resync(name)
        except IndexRefusedError as error:
            if error.status != 409:  # the state of the publisher forbids it: it is applied again anyway
                raise
        else:
            state.resynced = True


def _take(audit: ReplicaAudit, found: Comparison | None) -> None:
    if found is None:
        audit.verdict, audit.detail = "inconclusive", "the replicas reached no common position in time"
        return
    audit.position, audit.detail = found.position, ""
    audit.verdict = "equal" if found.equal else "different"
    for state, blocks in zip(audit.replicas, found.blocks(), strict=True):
        state.blocks = blocks
