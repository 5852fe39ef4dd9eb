"""The parts of one engine and the requests that live in it: what its stages share.

The stages (ordinary output, bulk decoding, statistics) each hold this object and none of them knows another, so that
the engine can combine them without circular imports.
"""

from collections.abc import Callable

from kvsync_mockpod.engine.api import Executor, FinishReason, LatencyModel, RequestOutput
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.counters import Counters
from kvsync_mockpod.engine.errors import EngineConfigError
from kvsync_mockpod.engine.hashing import BlockIdentity, HashedIdentity
from kvsync_mockpod.engine.log import TransitionLog
from kvsync_mockpod.engine.manager import BlockManager
from kvsync_mockpod.engine.pool import BlockPool
from kvsync_mockpod.engine.recorder import Recorder
from kvsync_mockpod.engine.scheduler import Scheduler
from kvsync_mockpod.engine.sequence import Sequence, Status
from kvsync_mockpod.engine.tiers import Link, OffloadEngine, TierConfig


class EngineState:
    """Scheduler, block table, tiers, recorder and counters of one engine, and its live sequences."""

    def __init__(
        self,
        config: EngineConfig,
        executor: Executor,
        latency: LatencyModel | None,
        *,
        tiers: TierConfig | None,
        disk_link: Link | None,
        identity: BlockIdentity | None,
        publish: bool,
        runs: bool,
        random_bytes: Callable[[int], bytes] | None,
    ) -> None:
        self.config = config
        self.executor = executor
        self.latency = latency
        self.log = TransitionLog(config.log_entries)
        self.recorder = Recorder(
            config.block_size, self.log, publish=publish, keep_tokens=config.keep_tokens, runs=runs
        )
        self.recorder.last_copy_only = config.removals == "last_copy"
        self.pool = BlockPool(
            config.usable_blocks,
            self.recorder,
            caching=config.enable_prefix_caching,
            blanks_first=config.blanks_first,
        )
        self.identity = identity or HashedIdentity(
            block_size=config.block_size,
            algo=config.hash_algo,
            seed=config.hash_seed,
            vllm_version=config.vllm_version,
            random_bytes=random_bytes,
        )
        self.needs_tokens = (publish and not runs) or config.keep_tokens or self.identity.needs_tokens
        """Whether the token ids of completed blocks are used: by events, by kept content or by the block hashes."""
        self.tiers: OffloadEngine | None = None
        if tiers is not None:
            if not (config.keep_tokens and config.enable_prefix_caching):
                raise EngineConfigError("lower tiers need enable_prefix_caching and keep_tokens")
            self.tiers = OffloadEngine(tiers, self.recorder, disk_link=disk_link)
            self.recorder.hash_only = tiers.events == "hash_only"
        self.manager = BlockManager(config, self.pool, self.identity, self.recorder, self.tiers)
        self.scheduler = Scheduler(config, self.manager, executor)
        self.counts = Counters()
        self.live: dict[str, Sequence] = {}
        """Accepted requests that have not ended, oldest first."""
        self.ended = False
        """A request ended since the last schedule: vLLM runs one more (possibly empty) step to report it."""
        self.notices: list[RequestOutput] = []
        """Ends that belong to no batch (aborts, refusals by the executor); the next step reports them."""

    def end(self, seq: Sequence, reason: FinishReason) -> None:
        """Mark a sequence as finished and count it; the caller takes it out of its queue and frees its blocks."""
        seq.status = Status.FINISHED
        del self.live[seq.id]
        self.ended = True
        self.counts.finished[reason] = self.counts.finished.get(reason, 0) + 1

    def refuse(self, seq: Sequence, error: str) -> None:
        """End a sequence that the executor did not admit."""
        self.end(seq, "error")
        self.notices.append(seq.make_output([], "error", error=error))

    def take_notices(self) -> list[RequestOutput]:
        """Return `notices` and empty the list."""
        notices, self.notices = self.notices, []
        return notices
