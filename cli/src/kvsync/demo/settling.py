"""Waits until engines and index are quiet after the last request, and audits the index."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from kvsync.errors import KvsyncError
from kvsync.local.pods import LocalPod
from kvsync.prometheus_text import counter_total
from kvsync_indexer.client import AsyncIndexClient

QUIET_DEADLINE_S = 60.0
POLL_S = 0.1
AUDIT_WAIT_S = 20.0


class _Digests(msgspec.Struct):
    seq: dict[str, int]
    quiet: bool


@dataclass(frozen=True, slots=True)
class AuditTotals:
    """The audits of all publishers, added up."""

    publishers: int
    blocks: int
    differences: int
    failed: tuple[str, ...] = ()
    """The publishers that could not be compared, each with the reason."""

    @property
    def clean(self) -> bool:
        """Whether every publisher was compared and found equal."""
        return self.publishers > 0 and self.differences == 0 and not self.failed


async def wait_quiet(session: aiohttp.ClientSession, index: AsyncIndexClient, pods: Sequence[LocalPod]) -> None:
    """Wait until every engine is idle and the index has applied its last batch.

    Raises:
        KvsyncError: the deadline passed; the message names the engines that are not quiet.
    """
    end = time.monotonic() + QUIET_DEADLINE_S
    while True:
        waiting = await _not_quiet(session, index, pods)
        if not waiting:
            return
        if time.monotonic() > end:
            raise KvsyncError(f"not quiet after {QUIET_DEADLINE_S:.0f} s: {'; '.join(waiting)}")
        await asyncio.sleep(POLL_S)


async def _not_quiet(session: aiohttp.ClientSession, index: AsyncIndexClient, pods: Sequence[LocalPod]) -> list[str]:
    rows = {row.name: row for row in await index.publishers()}
    waiting: list[str] = []
    for pod in pods:
        try:
            async with session.get(f"{pod.http_url}/debug/kv/digest") as response:
                digests = msgspec.json.decode(await response.read(), type=_Digests)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            waiting.append(f"{pod.name}: {type(error).__name__}")
            continue
        row = rows.get(pod.name)
        published = max(digests.seq.values(), default=-1)
        applied = -1 if row is None or row.last_seq is None else row.last_seq
        if not digests.quiet:
            waiting.append(f"{pod.name} is busy")
        elif row is None or row.state != "live":
            waiting.append(f"{pod.name} is {row.state if row else 'unknown to the index'}")
        elif applied != published:
            waiting.append(f"{pod.name}: applied {applied} of {published}")
    return waiting


async def audit_all(index: AsyncIndexClient, pods: Sequence[LocalPod]) -> AuditTotals:
    """Audit the index by `POST /v1/audit` and add up the results of the pods."""
    audit = await index.audit(wait_quiet_s=AUDIT_WAIT_S)
    audited = {row.publisher for row in audit.publishers}
    failed = [f"{pod.name} not audited" for pod in pods if pod.name not in audited]
    failed += [
        f"{row.publisher} {row.verdict}{': ' + row.detail if row.detail else ''}"
        for row in audit.publishers
        if row.verdict not in ("equal", "different")
    ]
    return AuditTotals(audit.audited, audit.blocks, audit.differences, tuple(failed))


async def sum_counter(session: aiohttp.ClientSession, pods: Sequence[LocalPod], name: str) -> int:
    """Return the sum of a counter over the engines. The counter of a restarted engine began again at 0."""
    total = 0
    for pod in pods:
        async with session.get(f"{pod.http_url}/metrics") as response:
            total += counter_total(await response.text(), name)
    return total
