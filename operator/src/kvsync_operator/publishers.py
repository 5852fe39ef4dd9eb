"""The state of the publishers, as every ready index pod answers `GET /readyz`.

This path needs no token, so the operator has neither the tokens of the API nor the right to read Secrets. With TLS, the
certificate is not verified: it names no pod address, and nothing secret is sent.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import msgspec

from kvsync_indexer.api import Readiness
from kvsync_operator import names
from kvsync_operator.reconcile.types import SyncReport

_TIMEOUT = aiohttp.ClientTimeout(total=4.0)
_PATH = "/readyz"
_MAX_BYTES = 2**20
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
        readiness = msgspec.convert(answer, Readiness)
    except msgspec.ValidationError as error:
        return SyncReport(error=f"the index answered {_PATH} in another form: {error}")
    states = readiness.states
    if sum(states.values()) != readiness.publishers:
        return SyncReport(error=f"the index answered {_PATH} without the states of its publishers: it is too old")
    return SyncReport(
        total=readiness.publishers,
        live=states.get("live", 0),
        stale=states.get("stale", 0),
        resyncing=sum(states.get(state, 0) for state in _RESYNCING),
        quarantined=states.get("quarantined", 0),
    )


def least_favourable(reports: Iterable[SyncReport]) -> SyncReport:
    """The report that stands for all: one with an error, else the one with the most publishers that are not live."""
    ranked = sorted(reports, key=lambda report: (report.error is None, report.live - report.total, report.live))
    return ranked[0] if ranked else SyncReport(error="no index pod is ready")


def serves_tls(document: Mapping[str, Any]) -> bool:
    """Whether the index of this PrefixIndex, which may be invalid, serves HTTPS."""
    spec = document.get("spec")
    api = spec.get("api") if isinstance(spec, Mapping) else None
    return isinstance(api, Mapping) and api.get("tlsSecretName") is not None


async def ask_index(session: aiohttp.ClientSession, addresses: Iterable[str], *, tls: bool = False) -> SyncReport:
    """Ask every pod at once, and return the least favourable report. `tls`: the pods serve HTTPS."""
    scheme = "https" if tls else "http"
    reports = await asyncio.gather(*(_ask(session, scheme, address) for address in addresses))
    return least_favourable(reports)


async def _ask(session: aiohttp.ClientSession, scheme: str, address: str) -> SyncReport:
    host = f"[{address}]" if ":" in address else address
    url = f"{scheme}://{host}:{names.INDEX_PORT}{_PATH}"
    try:
        async with session.get(url, timeout=_TIMEOUT, ssl=False) as response:
            if response.status not in (200, 503):  # one that is not ready says what it knows all the same
                return SyncReport(error=f"{url} answered {response.status}")
            if (response.content_length or 0) > _MAX_BYTES:
                return SyncReport(error=f"{url} answered more than {_MAX_BYTES} bytes")
            return count_publishers(await response.json(content_type=None))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        reason = str(error) or type(error).__name__
        return SyncReport(error=f"{url}: {reason[:200]}")
