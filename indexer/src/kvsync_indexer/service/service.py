"""The parts of a running index, put together; no HTTP server here."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec
import structlog

from kvsync_indexer.audit import Auditor
from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.core import CoreError, CoreLimits, IndexCore, UnknownPublisherError, make_core
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.prediction import PredictionTotals
from kvsync_indexer.publishers import SpecSet
from kvsync_indexer.service.match import Matcher
from kvsync_indexer.service.snapshots import Snapshots, check_directory
from kvsync_indexer.service.tokenizing import Tokenizer
from kvsync_indexer.service.views import publisher_row
from kvsync_indexer.static import PublishersFile
from kvsync_indexer.sync import State

if TYPE_CHECKING:
    from kvsync_indexer.discovery import KubernetesDiscovery

_log = structlog.get_logger("kvsync_indexer.service")

FILE_POLL_S = 0.25
STALL_S = 5.0
"""The I/O thread turns every 50 ms; silent for this long it hangs."""
FIRST_SYNC_S = 10.0
"""Readiness waits this long for the first publishers to be heard."""
UNCLAIMED_S = 600.0
"""Blocks restored from a snapshot wait so long for a silent API server to name their publishers."""
_UNSETTLED = frozenset({State.CONNECTING, State.REPLAYING, State.RESYNCING, State.RESTART})


class IndexService:
    """Core, ingest, sources, matcher and auditor of one index."""

    def __init__(
        self,
        config: IndexerConfig,
        *,
        core: IndexCore | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises ConfigError (publishers file, core) before anything is started."""
        self.config = config
        self.monotonic = monotonic
        self._file = PublishersFile(config.publishers) if config.publishers is not None else None
        self._first = self._file.read() if self._file is not None else []
        if config.snapshot_dir is not None:
            check_directory(config.snapshot_dir)
        try:
            self.core = core or make_core(config.core, CoreLimits(max_blocks=config.max_blocks))
        except CoreError as error:
            raise ConfigError(f"--core {config.core}: {error}") from None
        self.discovery: KubernetesDiscovery | None = None
        self.ingest = Ingest(
            self.core,
            sync=config.sync_settings(),
            sockets=config.socket_settings(),
            topic=config.topic,
            trust_suspect=config.trust == "suspect",
            monotonic=monotonic,
            wall=wall,
        )
        self.tokenizer = Tokenizer()
        self.matcher = Matcher(self.ingest, self.tokenizer, monotonic)
        self.auditor = Auditor(self.ingest, monotonic=monotonic)
        self.snapshots = Snapshots(self.core, self.ingest, config.snapshot_dir, wall)
        self._file_specs = SpecSet(self.ingest)
        self._started_at: float | None = None
        try:
            self.discovery = self._discovery(config)
        except ConfigError:
            self.ingest.stop()
            raise
        self._settled = False
        self._tasks: list[asyncio.Task[None]] = []

    def _discovery(self, config: IndexerConfig) -> "KubernetesDiscovery | None":
        if config.discover is None:
            return None
        from kvsync_indexer.discovery import KubernetesDiscovery  # the client is large; only who needs it loads it

        return KubernetesDiscovery(self.ingest, selector=config.selector, namespaces=config.namespaces)

    async def start(self) -> None:
        """Resume from a snapshot where there is one, then follow publishers."""
        resumed = await self.snapshots.restore(self.config.bootstrap_from)
        self.ingest.start()
        if self.discovery is not None:
            self.discovery.start()
        self._file_specs.replace(self._first)
        self._started_at = self.monotonic()
        if self._file is not None:
            self._tasks.append(asyncio.create_task(self._follow_file(self._file), name="publishers-file"))
        if self.config.audit_interval_s:
            self._tasks.append(asyncio.create_task(self._audit_often(self.config.audit_interval_s), name="audit"))
        if resumed:
            self._tasks.append(asyncio.create_task(self._forget_unclaimed(), name="unclaimed"))
        if self.config.snapshot_dir is not None:
            self._tasks.append(asyncio.create_task(self._write_snapshots(), name="snapshots"))
        _log.info("index_started", core=self.core.name, publishers=len(self._first), resumed=resumed)

    async def stop(self) -> None:
        """Stop following, close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.discovery is not None:
            await asyncio.to_thread(self.discovery.stop)
        if self.ingest.running:
            await self.snapshots.write()
        await asyncio.to_thread(self.ingest.stop)
        await self.auditor.close()
        await self.tokenizer.close()

    def rows(self) -> Iterable[Mapping[str, object]]:
        """Publishers as `/v1/publishers` gives them, for a router in this process."""
        now = self.monotonic()
        return [msgspec.to_builtins(publisher_row(link, self.core, now)) for link in self.ingest.links()]

    def record_prediction(
        self, publisher: str, predicted_tokens: int, cached_tokens: int, prompt_tokens: int | None = None
    ) -> PredictionTotals:
        """What a router learnt of one prediction. Raises UnknownPublisherError."""
        link = self.ingest.link(publisher)
        if link is None:
            raise UnknownPublisherError(publisher)
        predictions = self.auditor.predictions
        if publisher not in predictions.totals:  # bounded: who has left makes room for who comes
            predictions.keep({each.spec.name for each in self.ingest.links()})
        return predictions.record(publisher, predicted_tokens, cached_tokens, prompt_tokens, link.totals.block_size)

    def health_problem(self) -> str | None:
        """Why this process should be restarted, if it should."""
        if not self.ingest.running:
            return "the I/O thread has ended"
        silent = self.monotonic() - self.ingest.heartbeat
        return f"the I/O thread has not turned for {silent:.1f} s" if silent > STALL_S else None

    def readiness(self) -> dict[str, object]:
        """Whether queries get useful answers: sources read, and the first publishers heard (or given time enough)."""
        links = self.ingest.links()
        states = [link.machine.state for link in links]
        if not self._settled and self._started_at is not None:
            waited = self.monotonic() - self._started_at > FIRST_SYNC_S
            synced = self.discovery is None or self.discovery.synced
            heard = synced and len(links) >= len(self._first) and not any(state in _UNSETTLED for state in states)
            self._settled = waited or heard
        problem = self.health_problem()
        return {
            "ready": self._settled and problem is None,
            "core": self.core.name,
            "publishers": len(links),
            "live": sum(state is State.LIVE for state in states),
            "problem": problem,
            "discovery": {} if self.discovery is None else self.discovery.problems,
        }

    async def _write_snapshots(self) -> None:
        while True:
            await asyncio.sleep(self.config.snapshot_interval_s)
            await self.snapshots.write()

    async def _forget_unclaimed(self) -> None:
        """Restored publishers that no source names are gone."""
        waited = 0.0
        while self.discovery is not None and not self.discovery.synced and waited < UNCLAIMED_S:
            await asyncio.sleep(FILE_POLL_S)
            waited += FILE_POLL_S
        dropped = await asyncio.wrap_future(self.ingest.drop_unclaimed())
        if dropped:
            _log.info("snapshot_publishers_gone", publishers=dropped)

    async def _follow_file(self, file: PublishersFile) -> None:
        while True:
            await asyncio.sleep(FILE_POLL_S)
            try:
                specs = await asyncio.to_thread(file.poll)
            except ConfigError as error:
                _log.error("publishers_file_kept", problem=str(error))
                continue
            if specs is not None:
                changed, removed = self._file_specs.replace(specs)
                _log.info("publishers_file_read", publishers=len(specs), changed=changed, removed=removed)

    async def _audit_often(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            report = await self.auditor.audit()
            level = _log.warning if report.differences else _log.info
            level("audit", audited=report.audited, blocks=report.blocks, differences=report.differences)
