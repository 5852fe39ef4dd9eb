"""Learns blocks from answers: what an engine found cached and the index did not know of.

An index that joins late sees only the part of a history that the replay buffer still holds. A prompt that was stored
before that and is hit by every request since stays unknown for ever, because hits emit nothing. But vLLM 0.26 and newer
announces the whole chain of a hit again for a request that asks for it (`kv_cache_report_mode: full`). So when a router
reports that an engine of an incomplete publisher found more in its cache than the index predicted, the index answers
that it wants a report, and the router adds the argument to its next request with that prompt.

Nothing is learnt from the number itself: only the engine's event says which blocks it holds.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final

import aiohttp
import msgspec

from kvsync_indexer import bounded
from kvsync_indexer.addresses import guarded_connector
from kvsync_indexer.bounded import fetched
from kvsync_indexer.errors import OversizeError
from kvsync_indexer.ingest import Ingest, PublisherLink

EVERY_S: Final = 1.0
"""At most one report per publisher is wanted in this time: a report costs the engine an event as long as the prompt."""
_REPORTS_SINCE: Final = (0, 26)
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\D|$)")
_POLL_S: Final = 2.0
_AT_ONCE: Final = 16


class Learning:
    """Decides whether the index wants a publisher's engine to announce a prompt again. Use it in one event loop."""

    def __init__(self, *, on: bool, monotonic: Callable[[], float]) -> None:
        self._on = on
        self._monotonic = monotonic
        self._asked_at: dict[str, float] = {}
        self.wanted = 0
        """Reports that were wanted."""

    def wants_report(self, link: PublisherLink, predicted_tokens: int, cached_tokens: int) -> bool:
        """Return whether the answer to a request shows blocks that a report would make known."""
        if not self._on or cached_tokens <= predicted_tokens or not link.machine.incomplete:
            return False
        if not link.machine.trusted or not can_report(link.engine_version):
            return False
        now = self._monotonic()
        if now - self._asked_at.get(link.spec.name, -EVERY_S) < EVERY_S:
            return False
        self._asked_at[link.spec.name] = now
        self.wanted += 1
        return True

    def keep(self, publishers: set[str]) -> None:
        """Forget every other publisher."""
        for name in self._asked_at.keys() - publishers:
            del self._asked_at[name]


def can_report(version: str | None) -> bool:
    """Whether this version of vLLM announces the chain of a hit again when a request asks for it."""
    found = _VERSION.match(version or "")
    return found is not None and (int(found[1]), int(found[2])) >= _REPORTS_SINCE


class EngineVersions:
    """Asks each engine for its version, once per process of the engine. Use it in one event loop."""

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest
        self._asked: dict[str, tuple[object, ...]] = {}

    async def follow(self) -> None:
        """Ask the engines that have not been asked, again and again, until cancelled."""
        async with aiohttp.ClientSession(connector=guarded_connector(_AT_ONCE)) as session:
            while True:
                links = [link for link in self._ingest.links() if link.spec.http_url and link.machine.trusted]
                await asyncio.gather(*(self._ask(session, link) for link in links if self._is_new(link)))
                current = {link.spec.name for link in self._ingest.links()}
                self._asked = {name: life for name, life in self._asked.items() if name in current}
                await asyncio.sleep(_POLL_S)

    def _is_new(self, link: PublisherLink) -> bool:
        return self._asked.get(link.spec.name) != _life(link)

    async def _ask(self, session: aiohttp.ClientSession, link: PublisherLink) -> None:
        life, url = _life(link), f"{(link.spec.http_url or '').rstrip('/')}/version"
        link.engine_version = None
        try:
            async with fetched(session, url, bounded.ENGINE_VERSION) as (response, data):
                if response.status == 200:
                    link.engine_version = msgspec.json.decode(data, type=_Version).version[:64]
        except (TimeoutError, aiohttp.ClientError, OSError):
            return  # it may answer the next time
        except (OversizeError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass
        self._asked[link.spec.name] = life


class _Version(msgspec.Struct):
    version: str


def _life(link: PublisherLink) -> tuple[object, ...]:
    """What changes when another process of the engine takes over."""
    return link.machine.epoch, link.machine.standing.incarnation, link.spec.http_url
