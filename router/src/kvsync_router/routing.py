"""Decisions and their sources, put together: everything of a router except the front that clients talk to."""

import ssl
import time
from collections.abc import Callable, Sequence
from functools import partial

from prometheus_client import CollectorRegistry

from kvsync_indexer.client import AsyncIndexClient
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.affinity import SessionSource
from kvsync_router.decisions.endpoints import Endpoint, EndpointLimits, EndpointTable
from kvsync_router.decisions.picking import Hints, Picker, RoutingDecision
from kvsync_router.decisions.predictions import AnswerWatch, PredictionSink
from kvsync_router.decisions.replicas import ReplicaChoice
from kvsync_router.decisions.reports import ReportWishes
from kvsync_router.decisions.requests import InferenceRequest
from kvsync_router.decisions.responses import ResponseHomes
from kvsync_router.decisions.scoring import Scorer
from kvsync_router.decisions.subset import SUBSET_HEADER, permitted_names
from kvsync_router.decisions.usage import Usage
from kvsync_router.errors import RouterConfigError
from kvsync_router.metrics import RouterMetrics
from kvsync_router.sources.announcing import AnnouncingScorer
from kvsync_router.sources.client import HttpClient
from kvsync_router.sources.directory import ANSWER_TIMEOUT_S, Directory, HttpDirectory, InProcessDirectory
from kvsync_router.sources.health import EndpointKeeper
from kvsync_router.sources.predictions import HttpPredictions, InProcessPredictions, NoPredictions
from kvsync_router.sources.replicas import ReplicaProbe, ReplicaScorer, ReplicatedIndex, announce_preferred
from kvsync_router.sources.scoring import HttpScorer, InProcessScorer, NoScorer


class Routing:
    """What a front needs to place requests. Nothing is contacted before `start`."""

    def __init__(
        self,
        config: RouterConfig,
        directory: Directory,
        scorer: Scorer | None = None,
        client: HttpClient | None = None,
        *,
        predictions: PredictionSink | None = None,
        probe: ReplicaProbe | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`client` is the pool of sources that ask over HTTP, if there are any. Without a scorer there is no index."""
        self.config = config
        self.clock = clock
        self.client = client or HttpClient(config.connect_timeout_s)
        self.table = EndpointTable(clock, EndpointLimits(config.max_endpoint_requests, config.max_endpoint_queued))
        self.metrics = RouterMetrics(self.table.statistics, registry)
        self.keeper = EndpointKeeper(config, self.table, directory, self.client)
        announced = NoScorer() if scorer is None else AnnouncingScorer(scorer)
        self.picker = Picker(config, self.table, announced, clock, wall_clock)
        self._predictions = predictions or NoPredictions()
        self._probe = probe
        self.reports = ReportWishes()
        self.responses = ResponseHomes()
        self._sessions = SessionSource.parse(config.session_affinity)

    @classmethod
    def over_http(
        cls, config: RouterConfig, index_urls: Sequence[str], directory: Directory | None = None
    ) -> "Routing":
        """Routing that asks an index at one of `index_urls`, also for endpoints unless `directory` lists them.

        Several URLs are those of replicas. Raises RouterConfigError for a URL that cannot be used.
        """
        client = HttpClient(config.connect_timeout_s)
        if not index_urls:
            if directory is None:
                raise ValueError("neither an index nor a directory lists the endpoints")
            return cls(config, directory, client=client)
        sources = _Sources(config, index_urls, client)
        return cls(
            config,
            directory or HttpDirectory(sources.index(ANSWER_TIMEOUT_S)),
            sources.scorer(),
            client,
            predictions=HttpPredictions(sources.index(config.report_timeout_s), config.index_backoff_s),
            probe=sources.probe(),
        )

    @classmethod
    def in_process(cls, config: RouterConfig, index: IndexAnswers, directory: Directory | None = None) -> "Routing":
        """Routing in the process of the index, whose publishers are the endpoints unless `directory` lists them."""
        return cls(
            config,
            directory or InProcessDirectory(index),
            InProcessScorer(index, config.match_timeout_s),
            predictions=InProcessPredictions(index),
        )

    async def start(self) -> None:
        """Open the connection pool, read the endpoints and begin to keep them up to date."""
        await self.client.start()
        if self._probe is not None:
            await self._probe.start()
        await self._predictions.start(self.metrics.count_prediction, self.reports.grant)
        await self.keeper.start()

    async def stop(self) -> None:
        """End what `start` began."""
        await self.keeper.stop()
        await self._predictions.stop()
        if self._probe is not None:
            await self._probe.stop()
        await self.client.stop()

    def hints(self, request: InferenceRequest, header: Callable[[str], str | None]) -> Hints:
        """What the request says about its place. `header` looks up a header by its lower-case name."""
        subset = header(SUBSET_HEADER)
        return Hints(
            subset=None if subset is None else permitted_names(subset, (one.info for one in self.table.all())),
            session=self._sessions.session(header, request.user) if self._sessions is not None else None,
            home=self.responses.get(request.previous_response),
        )

    async def learn_model(self, model: str | None, authorization: str | None) -> None:
        """A model that no endpoint is known to serve may be listed to the client, whose key the engines know."""
        if model is not None and authorization is not None and not self.table.knows_model(model):
            await self.keeper.learn_models(model, authorization)

    async def decide(self, request: InferenceRequest, hints: Hints, began_at: float) -> RoutingDecision:
        """Decide how a request is to be placed, and count it. `began_at` is when the front turned to it."""
        decision = await self.picker.decide(request, hints)
        self.metrics.decision_seconds.observe(self.clock() - began_at)
        if decision.fallback is not None:
            self.metrics.fallbacks.inc()
        return decision

    def watch(
        self, request: InferenceRequest, decision: RoutingDecision, endpoint: Endpoint, status: int, content_type: str
    ) -> AnswerWatch | None:
        """A watch on an answer, if it can be compared with a prediction that the index made for this endpoint.

        The figures about the hit are counted when the watch is done, or at once if nothing is compared.
        """
        if status != 200:
            return None
        decision.record.chosen = endpoint.info.name  # a gateway may have gone on to another endpoint
        predicted = decision.predicted_tokens(endpoint.info.name) if request.single else None
        if predicted is None or not self._predictions.wanted:
            self._count_hit(decision, None)
            return None
        return AnswerWatch(
            self._predictions,
            self.metrics.count_prediction,
            endpoint,
            predicted,
            content_type,
            partial(self.reports.underestimated, endpoint.info.name, request),
            partial(self._count_hit, decision),
        )

    def _count_hit(self, decision: RoutingDecision, usage: Usage | None) -> None:
        if decision.skips_cache or not decision.policy.needs_match:
            regret = None
        elif usage is None:
            regret = decision.regret()
        else:
            regret = decision.regret(usage.cached_tokens, usage.prompt_tokens)
            decision.record.reported_tokens = usage.cached_tokens
        self.metrics.regret.count(regret)


class _Sources:
    """What a router asks of an index over HTTP, or of several replicas of it."""

    def __init__(self, config: RouterConfig, urls: Sequence[str], client: HttpClient) -> None:
        self._config = config
        self._urls = urls
        self._client = client
        self._choice = ReplicaChoice(len(urls), time.monotonic, announce_preferred(urls))

    def scorer(self) -> Scorer:
        """The source of matches."""
        config = self._config
        scorers = [
            HttpScorer(each, time.monotonic, config.index_backoff_s) for each in self._clients(config.match_timeout_s)
        ]
        if len(scorers) == 1:
            return scorers[0]
        return ReplicaScorer(scorers, self._choice, config.match_timeout_s, time.monotonic)

    def index(self, timeout_s: float) -> AsyncIndexClient | ReplicatedIndex:
        """For questions that each replica may take `timeout_s` to answer."""
        clients = self._clients(timeout_s)
        return clients[0] if len(clients) == 1 else ReplicatedIndex(clients, self._choice)

    def probe(self) -> ReplicaProbe | None:
        """What keeps an eye on the replicas; None if there is only one index."""
        if len(self._urls) == 1:
            return None
        clients = self._clients(self._config.match_timeout_s)
        return ReplicaProbe(clients, self._choice, self._config.refresh_s, time.monotonic)

    def _clients(self, timeout_s: float) -> list[AsyncIndexClient]:
        return [_index(self._config, url, self._client, timeout_s) for url in self._urls]


def _index(config: RouterConfig, url: str, client: HttpClient, timeout_s: float) -> AsyncIndexClient:
    token = config.index_token
    try:
        return AsyncIndexClient(
            url,
            session=client,
            timeout_s=timeout_s,
            token=None if token is None else token.get_secret_value(),
            tls=None if config.index_ca_file is None else ssl.create_default_context(cafile=str(config.index_ca_file)),
        )
    except ValueError as error:
        raise RouterConfigError(f"--index-url {error}") from None
