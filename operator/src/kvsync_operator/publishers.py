"""The state of the publishers, as every ready index pod answers `GET /v1/publishers`."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import msgspec

from kvsync_indexer.api import PublishersAnswer
from kvsync_operator import names
from kvsync_operator.reconcile.types import SyncReport

_TIMEOUT = aiohttp.ClientTimeout(total=4.0)
_MAX_BYTES = 8 * 2**20
_RESYNCING = {"connecting", "replaying", "resyncing", "gap", "restart"}


def ready_addresses(pods: Iterable[Mapping[str, Any]]) -> list[str]:
    """Addresses of the pods that are ready and are not being deleted, sorted."""
    addresses = []
    for pod in pods:
        status = pod.get("status") or {}
        ready = any(
            condition.get("type") == "Ready" and condition.get("status") == "True"
            for condition in status.get("conditions") or ()
        )
        if ready and status.get("podIP") and not pod["metadata"].get("deletionTimestamp"):
            addresses.append(str(status["podIP"]))
    return sorted(addresses)


def count_publishers(answer: object) -> SyncReport:
    """The publishers per state in the decoded answer of one index pod. Another form of answer becomes an error."""
    try:
        rows = msgspec.convert(answer, PublishersAnswer).publishers
    except msgspec.ValidationError as error:
        return SyncReport(error=f"the index answered /v1/publishers in another form: {error}")
    states = [row.state for row in rows]
    return SyncReport(
        total=len(rows),
        live=states.count("live"),
        stale=states.count("stale"),
        resyncing=sum(state in _RESYNCING for state in states),
        quarantined=states.count("quarantined"),
    )


def least_favourable(reports: Iterable[SyncReport]) -> SyncReport:
    """The report that stands for all: one with an error, else the one with the most publishers that are not live."""
    ranked = sorted(reports, key=lambda report: (report.error is None, report.live - report.total, report.live))
    return ranked[0] if ranked else SyncReport(error="no index pod is ready")


async def ask_index(session: aiohttp.ClientSession, addresses: Iterable[str]) -> SyncReport:
    """Ask every pod at once, and return the least favourable report."""
    reports = await asyncio.gather(*(_ask(session, address) for address in addresses))
    return least_favourable(reports)


async def _ask(session: aiohttp.ClientSession, address: str) -> SyncReport:
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{names.INDEX_PORT}/v1/publishers"
    try:
        async with session.get(url, timeout=_TIMEOUT) as response:
            if response.status != 200:
                return SyncReport(error=f"{url} answered {response.status}")
            if (response.content_length or 0) > _MAX_BYTES:
                return SyncReport(error=f"{url} answered more than {_MAX_BYTES} bytes")
            return count_publishers(await response.json(content_type=None))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return SyncReport(error=f"{url}: {reason[:200]}")
