"""The parts of a running index, put together without any server.

`IndexService` is also what fronts ask: it implements `kvsync_indexer.fronts.IndexAnswers`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from kvsync_indexer.access import Access, Area
from kvsync_indexer.api import (
    MatchAnswer,
    MatchRequest,
    PredictionAnswer,
    PredictionReport,
    PublisherRow,
    Readiness,
)
from kvsync_indexer.audit import Auditor
from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.core import CoreError, CoreLimits, IndexCore, make_core
from kvsync_indexer.errors import ConfigError, RequestError
from kvsync_indexer.ingest import InFlight, Ingest, PublisherLink, temporary_directory
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.prediction import MOST_TOKENS
from kvsync_indexer.publishers import SpecSet
from kvsync_indexer.publishers_file import PublishersFile
from kvsync_indexer.service.history import INTERVAL_S, History, Transitions
from kvsync_indexer.service.learning import EngineVersions, Learning
from kvsync_indexer.service.match import Matcher
from kvsync_indexer.service.snapshots import Snapshots, check_directory
from kvsync_indexer.service.views import publisher_row
from kvsync_indexer.sync import State
from kvsync_indexer.tokenizer_choice import parse_flags
from kvsync_indexer.tokenizing import Tokenizers

if TYPE_CHECKING:
    from kvsync_indexer.discovery import KubernetesDiscovery

_log = structlog.get_logger("kvsync_indexer.service")

FILE_POLL_S = 0.25
STALL_S = 5.0
"""The I/O thread reports every 50 ms; if it has not done so for this long, it hangs."""
FIRST_SYNC_S = 10.0
"""How long readiness waits for the first publishers to be followed."""
MOST_REASONS = 8
"""Publishers that are named in an answer about readiness."""
UNCLAIMED_S = 600.0
"""How long blocks from a snapshot are kept while the API server has not named their publishers."""
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
        files = {
            Area.QUERY: config.token_file,
            Area.AUDIT: config.audit_token_file,
            Area.DUMP: config.dump_token_file,
        }
        access = Access(files, monotonic)
        self.discovery: KubernetesDiscovery | None = None
        self._guard = _open_guard(config)
        transitions = Transitions(wall)
        self.ingest = Ingest(
            self.core,
            sync=config.sync_settings(),
            sockets=config.socket_settings(),
            topic=config.topic,
            curve_keys=config.curve_keys(),
            curve_server_key=config.curve_server_key,
            trust_suspect=config.trust == "suspect",
            guard=self._guard,
            log=transitions.take,
            monotonic=monotonic,
            wall=wall,
        )
        self.access = access
        key = config.engine_api_key
        self._api_key = None if key is None else key.get_secret_value()
        self.tokenizers = Tokenizers(*parse_flags(config.tokenizers), api_key=self._api_key, clock=monotonic)
        self.matcher = Matcher(self.ingest, self.tokenizers, monotonic)
        debug_token = None if config.debug_token is None else config.debug_token.get_secret_value()
        self.auditor = Auditor(self.ingest, monotonic=monotonic, debug_token=debug_token)
        self.match_seconds = LatencyHistogram()
        self.history = History(self.ingest, self.auditor, self.match_seconds, transitions, wall, monotonic)
        self.newest_decisions: Callable[[int], Sequence[Mapping[str, Any]]] | None = None
        """What a router in this process decided lately; None without one."""
        self.learning = Learning(on=config.learn_from_answers == "on", monotonic=monotonic)
        self._versions = EngineVersions(self.ingest)
        self.snapshots = Snapshots(self.core, self.ingest, config.snapshot_dir, wall, partial(access.token, Area.DUMP))
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
        from kvsync_indexer.discovery import KubernetesDiscovery  # imported here, because the client is large

        return KubernetesDiscovery(
            self.ingest, selector=config.selector, namespaces=config.namespaces, pool=config.pool
        )

    async def start(self) -> None:
        """Resume from a snapshot if there is one, then follow the publishers."""
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
        self._tasks.append(asyncio.create_task(self._record_history(), name="history"))
        self._tasks.append(asyncio.create_task(self._versions.follow(), name="engine-versions"))
        if self.config.snapshot_dir is not None:
            self._tasks.append(asyncio.create_task(self._write_snapshots(), name="snapshots"))
        _log.info("index_started", core=self.core.name, publishers=len(self._first), resumed=resumed)

    async def stop(self) -> None:
        """Stop following, write a last snapshot and close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.discovery is not None:
            await asyncio.to_thread(self.discovery.stop)
        if self.ingest.running:
            await self.snapshots.write()
        await asyncio.to_thread(self.ingest.stop)
        if self._guard is not None and not self.ingest.running:
            self._guard.close()
        await self.auditor.close()
        await self.tokenizers.close()

    async def match(self, request: MatchRequest) -> MatchAnswer:
        """Who holds how much of a prompt. Raises RequestError, TokenizeError."""
        return await self.matcher.answer(request)

    def publishers(self) -> list[PublisherRow]:
        """Every publisher, as it is now."""
        now = self.monotonic()
        return [publisher_row(link, self.core, now) for link in self.ingest.links()]

    def publisher(self, name: str) -> PublisherRow:
        """One publisher, as it is now. Raises RequestError."""
        return publisher_row(self.link(name), self.core, self.monotonic())

    def link(self, name: str) -> PublisherLink:
        """The publisher called `name`. Raises RequestError."""
        link = self.ingest.link(name)
        if link is None:
            raise unknown_publisher(name)
        return link

    async def resync(self, name: str) -> PublisherRow:
        """Apply the history of a publisher again, and return how it then stands. Raises RequestError."""
        link = self.link(name)
        begun = self.ingest.call(lambda: link.follower.resync("a client asked for it", self.monotonic()))
        if not await asyncio.wrap_future(begun):
            raise RequestError(409, f"publisher {name!r} is {link.machine.state} and begins anew when that ends")
        return self.publisher(name)

    def api_key(self, publisher: str) -> str | None:
        """The key of a publisher's HTTP API, if one is configured."""
        link = self.ingest.link(publisher)
        return (link.spec.api_key if link is not None else None) or self._api_key

    def record_prediction(self, report: PredictionReport) -> PredictionAnswer:
        """Count how one prediction turned out. Raises RequestError."""
        for field in ("predicted_tokens", "cached_tokens", "prompt_tokens"):
            value = getattr(report, field)
            if value is not None and not 0 <= value <= MOST_TOKENS:
                raise RequestError(422, f"{field}: must be between 0 and {MOST_TOKENS}", field=field)
        link = self.link(report.publisher)
        predictions = self.auditor.predictions
        if report.publisher not in predictions.totals:  # keeps the totals bounded
            current = {each.spec.name for each in self.ingest.links()}
            predictions.keep(current)
            self.learning.keep(current)
        totals = predictions.record(report, link.totals.block_size)
        if totals.shows_false_hits:
            share = f"{totals.over / max(1, totals.predicted):.0%} of the predicted tokens were not there"
            self.ingest.call(lambda: link.follower.false_hits(share, self.monotonic()))
        wants_report = self.learning.wants_report(link, report.predicted_tokens, report.cached_tokens)
        return PredictionAnswer(report.publisher, totals.requests, totals.error, wants_report)

    def health_problem(self) -> str | None:
        """Why this process should be restarted; None if it works."""
        if not self.ingest.running:
            return "the I/O thread has ended"
        silent = self.monotonic() - self.ingest.heartbeat
        if silent > STALL_S:
            return f"the I/O thread has not turned for {silent:.1f} s"
        return None if self.discovery is None else self.discovery.health_problem()

    def readiness(self) -> Readiness:
        """Whether queries get useful answers: the sources are read, and the first publishers are followed or late."""
        links = self.ingest.links()
        states = [link.machine.state for link in links]
        if not self._settled and self._started_at is not None:
            waited = self.monotonic() - self._started_at > FIRST_SYNC_S
            synced = self.discovery is None or self.discovery.synced
            heard = synced and len(links) >= len(self._first) and not any(state in _UNSETTLED for state in states)
            self._settled = waited or heard
        problem = self.health_problem()
        ready = self._settled and problem is None
        return Readiness(
            ready=ready,
            core=self.core.name,
            publishers=len(links),
            live=sum(state is State.LIVE for state in states),
            problem=problem,
            discovery={} if self.discovery is None else self.discovery.problems,
            reasons=[] if ready else self._unready(problem),
            states=dict(Counter(str(state) for state in states)),
        )

    def offer_decisions(self, newest: Callable[[int], Sequence[Mapping[str, Any]]]) -> None:
        """Answer `GET /v1/decisions` with `newest(limit)` from now on."""
        self.newest_decisions = newest

    async def _record_history(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL_S)
            self.history.sample()

    def _unready(self, problem: str | None) -> list[str]:
        """Why the index is not ready, in a few lines."""
        if self._started_at is None:
            return ["the index is starting"]
        reasons = [] if problem is None else [problem]
        if self._settled:
            return reasons
        if self.discovery is not None and not self.discovery.synced:
            reasons.append("the API server has not listed the pods yet")
        links = self.ingest.links()
        if len(links) < len(self._first):
            reasons.append(f"{len(self._first) - len(links)} publishers of the file are not followed yet")
        waiting = [link for link in links if link.machine.state in _UNSETTLED]
        reasons += [f"publisher {link.spec.name} is {link.machine.state}" for link in waiting[:MOST_REASONS]]
        if len(waiting) > MOST_REASONS:
            reasons.append(f"and {len(waiting) - MOST_REASONS} more publishers")
        return reasons

    async def _write_snapshots(self) -> None:
        while True:
            await asyncio.sleep(self.config.snapshot_interval_s)
            await self.snapshots.write()

    async def _forget_unclaimed(self) -> None:
        """Drop the restored publishers that no source has named."""
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


def _open_guard(config: IndexerConfig) -> InFlight | None:
    """The file that says what is being applied, among the snapshots or else among the temporary files."""
    if config.snapshot_dir is None:
        try:
            return InFlight(temporary_directory(config.port)) if config.port else None
        except OSError as error:
            _log.warning("applying_unmarked", problem=str(error))
            return None
    try:
        return InFlight(config.snapshot_dir)
    except OSError as error:
        raise ConfigError(f"--snapshot-dir {config.snapshot_dir}: {error.strerror}") from None


def unknown_publisher(name: str) -> RequestError:
    """The answer to a request that names a publisher which does not exist."""
    return RequestError(404, f"no publisher is named {name!r}; GET /v1/publishers lists them", field="publisher")
