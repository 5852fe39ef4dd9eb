"""The pod: its ranks, the names of its model and adapters, and the states that decide whether it accepts work."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import zmq

from kvsync_events import NEWEST_VERSION, EventsError, WireForm, hash_algorithms
from kvsync_mockpod.config import PodConfig, read_yaml
from kvsync_mockpod.engine import Engine, EngineConfig, LatencyModel, LoraRef
from kvsync_mockpod.engine.tiers import TierConfig
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.faults.spec import FaultPlan, parse_plan
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.metrics import EngineMetrics
from kvsync_mockpod.model_size import TOKEN_BYTES
from kvsync_mockpod.pod.environment import Environment
from kvsync_mockpod.pod.executor import TextExecutor
from kvsync_mockpod.pod.lora import LoraRegistry
from kvsync_mockpod.pod.rank import Rank
from kvsync_mockpod.pod.tokens import read_debug_tokens
from kvsync_mockpod.publish import CurveServer, EventPublisher, PublisherHooks, RankEndpoints, plan_endpoints
from kvsync_mockpod.text import EOS, TextModel, Tokenizer

_log = get_logger(__name__)


def resolve_version(config: PodConfig) -> str:
    """The vLLM version that the pod imitates; `newest` is resolved to the newest known one."""
    return NEWEST_VERSION if config.mock_wire_version == "newest" else config.mock_wire_version


def resolve_hash_algorithm(config: PodConfig) -> str:
    """The configured block hash algorithm, or the default of the version."""
    return config.prefix_caching_hash_algo or hash_algorithms(resolve_version(config))[0]


def resolve_form(config: PodConfig, environment: Environment) -> WireForm:
    """The form in which the version encodes events.

    Raises:
        ConfigError: the version has no KV events.
    """
    try:
        version = resolve_version(config)
        algorithm = resolve_hash_algorithm(config)
        return WireForm.for_version(version, int_hashes=environment.int_block_hashes, hash_algo=algorithm)
    except EventsError as error:
        raise ConfigError(f"mock_wire_version: {config.mock_wire_version!r} refused: {error}") from None


@dataclass(slots=True)
class PodState:
    """Operating states of the pod."""

    draining: bool = False
    paused: bool = False
    sleep_level: int = -1
    """-1 when awake, otherwise vLLM's sleep level."""


class Pod:
    """Everything behind the HTTP surface. It is built before the event loop runs and started on it."""

    def __init__(
        self,
        config: PodConfig,
        environment: Environment,
        *,
        latency: Callable[[int], LatencyModel | None],
        clock_s: Callable[[], float] = time.monotonic,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.environment = environment
        self.version = resolve_version(config)
        self.form = resolve_form(config, environment)
        self.clock_s = clock_s
        self.wall_s = wall_s
        self.started_s = wall_s()
        self.tokenizer = Tokenizer()
        self.model = TextModel(self.tokenizer, config.text_seed, config.mock_output_tokens)
        self.loras = LoraRegistry(config.lora_modules)
        self.state = PodState()
        self.faults = ActiveFaults()
        if config.mock_faults is not None:
            self.faults.set(parse_plan(read_yaml(config.mock_faults), f"mock_faults: {config.mock_faults}"))
        self.server_load = 0
        self.debug_tokens = read_debug_tokens(config)
        self._curve = CurveServer.of(config)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self.ranks = self._build_ranks(latency)

    def _build_ranks(self, latency: Callable[[int], LatencyModel | None]) -> list[Rank]:
        config = self.config
        engine_config = EngineConfig.build(
            block_size=config.block_size,
            num_gpu_blocks=config.num_gpu_blocks_override,
            max_num_seqs=config.max_num_seqs,
            max_num_batched_tokens=config.max_num_batched_tokens,
            max_model_len=config.max_model_len,
            enable_chunked_prefill=config.enable_chunked_prefill,
            policy=config.scheduling_policy,
            hash_algo=resolve_hash_algorithm(config),
            hash_seed=self.environment.hash_seed if config.mock_hash_seed is None else config.mock_hash_seed,
            async_scheduling=config.async_scheduling,
            scheduler_reserve_full_isl=config.scheduler_reserve_full_isl,
            watermark=config.watermark,
            long_prefill_token_threshold=config.long_prefill_token_threshold,
            enable_prefix_caching=config.enable_prefix_caching,
            max_loras=config.max_loras if self.accepts_loras else 0,
            eos_token_id=EOS,
            vocab_size=config.mock_vocab_size,
            vllm_version=self.version,
            max_waiting=config.mock_max_waiting,
            keep_tokens=config.mock_debug or bool(config.mock_host_blocks),
            log_entries=1_000_000 if config.mock_debug else 0,
            removals=config.mock_removals,
        )
        tiers = self._tiers()
        disk = tiers.make_disk_link() if tiers is not None else None
        ranks = []
        for endpoints in plan_endpoints(config):
            publisher = self._publisher_maker(endpoints)
            model = latency(endpoints.rank)
            engine = Engine(engine_config, TextExecutor(self.model), model, tiers=tiers, disk_link=disk)
            metrics = EngineMetrics(config.names[0], endpoints.rank, config.max_model_len, config.block_size)
            ranks.append(Rank(endpoints.rank, engine, metrics, self.clock_s, config.mock_time_scale, publisher))
        return ranks

    def _tiers(self) -> TierConfig | None:
        config = self.config
        if not config.mock_host_blocks:
            return None
        return TierConfig.build(
            host_blocks=config.mock_host_blocks,
            disk_blocks=config.mock_disk_blocks,
            block_bytes=config.mock_block_bytes or config.block_size * TOKEN_BYTES,
            device_to_host_bandwidth=config.mock_host_bandwidth,
            host_to_device_bandwidth=config.mock_host_bandwidth,
            disk_bandwidth=config.mock_disk_bandwidth,
            batch_blocks=config.mock_offload_batch_blocks,
            concurrent_batches=config.mock_offload_concurrency,
            instant=config.mock_tier_transfers == "instant",
            events=config.mock_tier_events,
            eviction=config.mock_tier_eviction,
            duplicates=config.mock_tier_duplicates,
            frequency=config.mock_tier_frequency,
            offload_min_uses=config.mock_offload_min_uses,
        )

    def _publisher_maker(self, endpoints: RankEndpoints) -> Callable[[Rank], EventPublisher]:
        def build(rank: Rank) -> EventPublisher:
            hooks = PublisherHooks(self.clock_s, self.wall_s, rank.log_position, rank.lose_blocks)
            return EventPublisher(self.config.events, endpoints, self.form, self.faults, hooks, self._curve)

        return build

    def set_faults(self, plan: FaultPlan) -> None:
        """Put a fault plan in force; an empty plan ends all faults."""
        self.faults.set(plan)
        loop = asyncio.get_running_loop()
        for rank in self.ranks:
            rank.publisher.plan_changed(loop)

    @property
    def accepts_loras(self) -> bool:
        """Whether requests may name an adapter, now or after one has been loaded."""
        return self.config.lora_enabled or self.environment.runtime_lora_updating

    @property
    def healthy(self) -> bool:
        """Whether the engines of all ranks are running."""
        return all(rank.dead is None for rank in self.ranks)

    def open(self) -> None:
        """Open the event sockets.

        Raises:
            StartError: an endpoint cannot be bound.
        """
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        if self._curve is not None:
            self._curve.start(context)
        try:
            for rank in self.ranks:
                rank.publisher.open(context)
        except BaseException:
            for rank in self.ranks:
                rank.publisher.close()
            self._stop_curve()
            context.term()
            raise
        self._context = context

    def _stop_curve(self) -> None:
        if self._curve is not None:
            self._curve.stop()

    def start(self) -> None:
        """Start every rank on the running event loop."""
        for rank in self.ranks:
            rank.start()

    def find_model(self, name: str | None) -> LoraRef | None:
        """The adapter with this model name; None for the base model.

        Raises:
            KeyError: no model has this name.
        """
        if name is None or name == "" or name in self.config.names:
            return None
        adapter = self.loras.get(name)
        if adapter is None:
            raise KeyError(name)
        return adapter

    def choose_rank(self, named: int | None) -> Rank:
        """The rank that a client names (`RankPlan.named`), or the one with the fewest requests in flight.

        Raises:
            KeyError: the rank is not in this pod.
        """
        if named is None:
            return min(self.ranks, key=lambda rank: rank.load)
        if not 0 <= named < len(self.ranks):
            raise KeyError(named)
        return self.ranks[named]

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work, let requests end and abort the rest at the deadline; returns True if none was aborted."""
        self.state.draining = True
        self.resume()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_idle(self.ranks), timeout_s)
        aborted = sum(rank.abort_all() for rank in self.ranks)
        if aborted:
            _log.warning("requests_aborted_at_drain_deadline", requests=aborted)
        return aborted == 0

    @staticmethod
    async def _all_idle(ranks: Sequence[Rank]) -> None:
        await asyncio.gather(*(rank.wait_idle() for rank in ranks))

    async def pause(self, mode: str) -> None:
        """Stop scheduling. Requests in flight are aborted (`abort`), run to their end (`wait`) or stay as they are
        (`keep`).
        """
        self.state.paused = True
        for rank in self.ranks:
            rank.pause(admit_only=mode == "wait")
            if mode == "abort":
                rank.abort_all()
        await self._all_idle(self.ranks)
        if mode == "wait" and self.state.paused:
            for rank in self.ranks:
                rank.pause()

    def reset_prefix_cache(self, *, reset_running_requests: bool, reset_external: bool) -> bool:
        """Reset the caches of all ranks; returns False if requests still hold blocks of a rank."""
        done = [
            rank.reset_prefix_cache(reset_running_requests=reset_running_requests, reset_external=reset_external)
            for rank in self.ranks
        ]
        return all(done)

    def resume(self) -> None:
        """Schedule again after a pause or sleep."""
        self.state.paused = False
        self.state.sleep_level = -1
        for rank in self.ranks:
            rank.resume()

    async def stop(self) -> None:
        """Stop the ranks and close the sockets, after events that already have a number were sent."""
        for rank in self.ranks:
            await rank.stop()
        if self._context is not None:
            self._stop_curve()
            await asyncio.get_running_loop().run_in_executor(None, self._context.term)
