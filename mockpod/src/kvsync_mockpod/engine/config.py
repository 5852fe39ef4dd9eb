"""The engine's configuration, with vLLM's names and defaults, validated once and frozen.

The defaults are those of a vLLM 0.33 server. Where a rule differs between versions, the property states the versions.
"""

from typing import Literal

from pydantic import Field, model_validator

from kvsync_events import Removals, UnsupportedVersionError, hash_algorithms
from kvsync_events.versions import parse_version
from kvsync_mockpod.engine.config_model import ConfigModel


class EngineConfig(ConfigModel):
    """Size of the cache, limits of a step, and the vLLM version whose rules apply."""

    subject = "engine parameter"

    block_size: int = Field(default=16, ge=1, le=65536)
    """Tokens per block."""
    num_gpu_blocks: int = Field(default=4096, ge=2)
    """Counted as in vLLM: block 0 is the null block, so one block less is usable."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Maximum number of running requests."""
    max_num_batched_tokens: int = Field(default=2048, ge=1)
    """Token budget per step."""
    max_model_len: int = Field(default=32768, ge=2)
    """Maximum length of a sequence, prompt and output together; one such request must fit the cache."""
    enable_chunked_prefill: bool = True
    policy: Literal["fcfs", "priority"] = "fcfs"
    hash_algo: str = "sha256"
    """One of the algorithms that the vLLM version has (`kvsync_events.hash_algorithms`)."""
    hash_seed: str | None = None
    """The value that vLLM reads from PYTHONHASHSEED; None if that is not set."""
    async_scheduling: bool | None = None
    """Take a step's output after the next step was scheduled. None: the default of the vLLM version (see `is_async`).
    """
    scheduler_reserve_full_isl: bool = True
    """Require room for the whole known sequence at admission."""
    watermark: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the blocks that is kept free when a request is admitted while others run."""
    long_prefill_token_threshold: int = Field(default=0, ge=0)
    """Largest prefill chunk of one request per step; 0 for no limit."""
    enable_prefix_caching: bool = True
    max_loras: int = Field(default=0, ge=0)
    """Number of LoRA slots; 0 disables LoRA."""
    eos_token_id: int = Field(default=2, ge=0)
    vocab_size: int = Field(default=128256, ge=3)
    vllm_version: str = "0.33.0"
    max_waiting: int | None = Field(default=None, ge=1)
    """Maximum length of the waiting queue; None if the server in front limits it."""
    step_retries: int = Field(default=0, ge=0)
    """How often a failed step is retried before its requests end with `error`."""
    uncomputed_hits: Literal["vllm", "fixed"] = "vllm"
    """Treatment of blocks that a request announced in the step in which it was preempted.

    `vllm`: they stay and can be hit although they were never computed (vllm-project/vllm#43569). `fixed`: they are
    withdrawn.
    """
    removals: Removals = "each_copy"
    """Removals that are announced for a block with several copies; vLLM up to 0.33 announces each."""
    keep_tokens: bool = True
    """Keep the token ids of resident blocks, for block dumps and lower tiers. Offline replay saves memory without them.
    """
    log_entries: int = Field(default=1_000_000, ge=0)
    """Number of transition log entries to keep; older ones are dropped. 0 disables the log."""

    @model_validator(mode="after")
    def _fits(self) -> "EngineConfig":
        try:
            algorithms = hash_algorithms(self.vllm_version)
        except UnsupportedVersionError as error:
            raise ValueError(str(error)) from None
        if self.hash_algo not in algorithms:
            raise ValueError(f"hash_algo {self.hash_algo!r}: vLLM {self.vllm_version} has {', '.join(algorithms)}")
        need = -(-self.max_model_len // self.block_size)
        if need > self.usable_blocks:
            raise ValueError(
                f"num_gpu_blocks {self.num_gpu_blocks} has {self.usable_blocks} usable blocks, but one request of "
                f"max_model_len {self.max_model_len} needs {need} blocks of {self.block_size} tokens"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} must be at least max_model_len "
                f"{self.max_model_len} without chunked prefill"
            )
        if self.long_prefill_token_threshold > self.max_model_len:
            raise ValueError(
                f"long_prefill_token_threshold {self.long_prefill_token_threshold} must be at most max_model_len "
                f"{self.max_model_len}"
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} must be at least max_num_seqs "
                f"{self.max_num_seqs}"
            )
        return self

    @property
    def usable_blocks(self) -> int:
        """Number of blocks that can hold tokens (the null block cannot)."""
        return self.num_gpu_blocks - 1

    @property
    def is_async(self) -> bool:
        """Whether scheduling runs one step ahead.

        If it is not configured, it is off up to vLLM 0.13 (`SchedulerConfig.async_scheduling = False`, also the
        server's default) and on from 0.14: `Field(default=None)` in vllm/config/scheduler.py, which vllm/config/vllm.py
        sets to True unless an option forbids it (pipeline parallelism, some kinds of speculative decoding, some
        executors).
        """
        if self.async_scheduling is None:
            return parse_version(self.vllm_version) >= (0, 14, 0)
        return self.async_scheduling

    @property
    def blanks_first(self) -> bool:
        """Whether freed blocks without a hash are reused first; otherwise all blocks are reused in plain LRU order.

        `BlockPool.free_blocks` (vllm/v1/core/block_pool.py) appends all of them up to 0.23 and prepends those without a
        hash from 0.24.
        """
        return parse_version(self.vllm_version) >= (0, 24, 0)

    @property
    def lone_request_unthrottled(self) -> bool:
        """Whether `long_prefill_token_threshold` does not apply to a request that is alone.

        This is so from 0.31, where `Scheduler.schedule` in vllm/v1/core/sched/scheduler.py counts the eligible
        requests; 0.30 limits every request.
        """
        return parse_version(self.vllm_version) >= (0, 31, 0)

    @property
    def reserves_full(self) -> bool:
        """`scheduler_reserve_full_isl`, known from vLLM 0.19; before, admission needs room for one chunk only."""
        return self.scheduler_reserve_full_isl and parse_version(self.vllm_version) >= (0, 19, 0)

    @property
    def margin_blocks(self) -> int:
        """Number of blocks that `watermark` keeps free at admission; the option exists from vLLM 0.24."""
        known = parse_version(self.vllm_version) >= (0, 24, 0)
        return int(self.watermark * self.num_gpu_blocks) if known else 0

    @property
    def reports_hits(self) -> bool:
        """Whether `kv_cache_report_mode: full` exists (`Request` in vllm/v1/request.py): from 0.26."""
        return parse_version(self.vllm_version) >= (0, 26, 0)

    @property
    def skipped_first(self) -> bool:
        """Whether, under fcfs, a request skipped for lack of a LoRA slot precedes those preempted in the meantime.

        This is so where skipped requests have a queue of their own (`Scheduler.skipped_waiting` in
        vllm/v1/core/sched/scheduler.py): 0.18 to 0.30. In other versions they return to the head of the waiting queue.
        """
        return (0, 18, 0) <= parse_version(self.vllm_version) < (0, 31, 0)

    @property
    def loras_of_running(self) -> bool:
        """Whether every running request keeps its LoRA slot: from 0.33; before, only those scheduled in the step do.

        (`Scheduler.schedule` in vllm/v1/core/sched/scheduler.py.) It makes a difference with asynchronous scheduling,
        where a request whose last token is in flight runs but is not scheduled.
        """
        return parse_version(self.vllm_version) >= (0, 33, 0)
