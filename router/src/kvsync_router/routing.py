"""Decisions and their sources, put together: everything of a router except the front that clients talk to."""

import ssl
import time
from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry

from kvsync_indexer.client import AsyncIndexClient
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.config import RouterConfig
from kvsync_router.decisions.endpoints import Endpoint, EndpointTable
from kvsync_router.decisions.picking import Picker, RoutingDecision
from kvsync_router.decisions.predictions import AnswerWatch, PredictionSink
from kvsync_router.decisions.reports import ReportWishes
from kvsync_router.decisions.requests import InferenceRequest
from kvsync_router.decisions.scoring import Scorer
from kvsync_router.metrics import RouterMetrics
from kvsync_router.sources.client import HttpClient
from kvsync_router.sources.directory import ANSWER_TIMEOUT_S, Directory, HttpDirectory, InProcessDirectory
from kvsync_router.sources.health import EndpointKeeper
from kvsync_router.sources.predictions import HttpPredictions, InProcessPredictions, NoPredictions
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
        clock: Callable[[], float] = time.monotonic,
        registry: CollectorRegistry | None = None,
    ) -> None:
        """`client` is the pool of sources that ask over HTTP, if there are any. Without a scorer there is no index."""
        self.config = config
        self.clock = clock
        self.client = client or HttpClient(config.connect_timeout_s)
        self.table = EndpointTable(clock)
        self.metrics = RouterMetrics(self.table.statistics, registry)
        self.keeper = EndpointKeeper(config, self.table, directory, self.client)
        self.picker = Picker(config, self.table, scorer or NoScorer())
        self._predictions = predictions or NoPredictions()
        self.reports = ReportWishes()

    @classmethod
    def over_http(cls, config: RouterConfig, index_url: str | None, directory: Directory | None = None) -> "Routing":
        """Routing that asks the index at `index_url`, also for endpoints unless `directory` lists them."""
        client = HttpClient(config.connect_timeout_s)
        if index_url is None:
            if directory is None:
                raise ValueError("neither an index nor a directory lists the endpoints")
            return cls(config, directory, client=client)
        return cls(
            config,
            directory or HttpDirectory(_index(config, index_url, client, ANSWER_TIMEOUT_S)),
            HttpScorer(
                _index(config, index_url, client, config.match_timeout_s), time.monotonic, config.index_backoff_s
            ),
            client,
            predictions=HttpPredictions(
                _index(config, index_url, client, config.report_timeout_s), config.index_backoff_s
            ),
        )

    @classmethod
    def in_process(cls, config: RouterConfig, index: IndexAnswers) -> "Routing":
        """Routing in the process of the index."""
        return cls(
            config,
            InProcessDirectory(index),
            InProcessScorer(index, config.match_timeout_s),
            predictions=InProcessPredictions(index),
        )

    async def start(self) -> None:
        """Open the connection pool, read the endpoints and begin to keep them up to date."""
        await self.client.start()
        await self._predictions.start(self.metrics.count_prediction, self.reports.grant)
        await self.keeper.start()

    async def stop(self) -> None:
        """End what `start` began."""
        await self.keeper.stop()
        await self._predictions.stop()
        await self.client.stop()

    def watch(
        self, request: InferenceRequest, decision: RoutingDecision, endpoint: Endpoint, status: int, content_type: str
    ) -> AnswerWatch | None:
        """A watch on an answer, if it can be compared with a prediction that the index made for this endpoint."""
        predicted = decision.predicted_tokens(endpoint.info.name) if request.single else None
        if predicted is None or status != 200 or not self._predictions.wanted:
            return None
        underestimated = partial(self.reports.underestimated, endpoint.info.name, request)
        return AnswerWatch(
            self._predictions, self.metrics.count_prediction, endpoint, predicted, content_type, underestimated
        )


def _index(config: RouterConfig, url: str, client: HttpClient, timeout_s: float) -> AsyncIndexClient:
    token = config.index_token
    return AsyncIndexClient(
        url,
        session=client,
        timeout_s=timeout_s,
        token=None if token is None else token.get_secret_value(),
        tls=None if config.index_ca_file is None else ssl.create_default_context(cafile=str(config.index_ca_file)),
    )
