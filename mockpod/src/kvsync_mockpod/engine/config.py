"""The engine's configuration: vLLM's names and defaults, validated once, frozen.

Defaults are those of a vLLM 0.33 server; where a rule changed between versions the property says when.
"""

import difflib
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from kvsync_events import UnsupportedVersionError, hash_algorithms
from kvsync_events.versions import parse_version
from kvsync_mockpod.engine.errors import EngineConfigError


class EngineConfig(BaseModel):
    """How large the cache is, how a step is filled and which vLLM version's rules hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    block_size: int = Field(default=16, ge=1, le=65536)
    """Tokens a block."""
    num_gpu_blocks: int = Field(default=4096, ge=2)
    """As vLLM counts: block 0 is the null block, so one less is usable."""
    max_num_seqs: int = Field(default=256, ge=1)
    """Most requests running at once."""
    max_num_batched_tokens: int = Field(default=2048, ge=1)
    """Token budget of a step."""
    max_model_len: int = Field(default=32768, ge=2)
    """Longest sequence, prompt and output together; one such request must fit the cache."""
    enable_chunked_prefill: bool = True
    policy: Literal["fcfs", "priority"] = "fcfs"
    hash_algo: str = "sha256"
    """One of the algorithms the vLLM version has (`kvsync_events.hash_algorithms`)."""
    hash_seed: str | None = None
    """What PYTHONHASHSEED is to vLLM; None is unset."""
    async_scheduling: bool | None = None
    """A step's output is taken after the next was scheduled. None: as the vLLM version's server (see `is_async`)."""
    scheduler_reserve_full_isl: bool = True
    """Admission needs room for the whole known sequence."""
    watermark: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the blocks kept free when a request is admitted while others run."""
    long_prefill_token_threshold: int = Field(default=0, ge=0)
    """Largest prefill chunk of one request in a step; 0: no limit."""
    enable_prefix_caching: bool = True
    max_loras: int = Field(default=0, ge=0)
    """LoRA slots; 0: LoRA is off."""
    eos_token_id: int = Field(default=2, ge=0)
    vocab_size: int = Field(default=128256, ge=3)
    vllm_version: str = "0.33.0"
    max_waiting: int | None = Field(default=None, ge=1)
    """Longest waiting queue; None leaves the bound to the server in front."""
    step_retries: int = Field(default=0, ge=0)
    """How often a failed step is run again before its requests end with `error`."""
    uncomputed_hits: Literal["vllm", "fixed"] = "vllm"
    """`vllm`: blocks announced by a request preempted in the same step stay and can be hit although they were never
    computed (vllm-project/vllm#43569); `fixed`: they are taken back."""
    keep_tokens: bool = True
    """Keep the token ids of resident blocks (block dumps, lower tiers); off saves memory in offline replay."""
    log_entries: int = Field(default=1_000_000, ge=0)
    """Transition log entries kept; older ones are dropped and counted; 0: no log."""

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the caller passed
        if isinstance(data, dict):
            for name in data:
                if name not in cls.model_fields:
                    near = difflib.get_close_matches(str(name), list(cls.model_fields), n=1, cutoff=0.4)
                    hint = f" (did you mean {near[0]}?)" if near else ""
                    raise ValueError(f"unknown engine parameter {name!r}{hint}")
        return data

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
        """Blocks that can hold tokens (the null block cannot)."""
        return self.num_gpu_blocks - 1

    @property
    def is_async(self) -> bool:
        """Whether scheduling runs one step ahead.

        Unset it is off up to vLLM 0.13 (`SchedulerConfig.async_scheduling = False`, which is also the server's
        default) and on from 0.14 (`Field(default=None)` in vllm/config/scheduler.py, which vllm/config/vllm.py turns
        into True unless an option forbids it: pipeline parallelism, some speculative decoding, some executors).
        """
        if self.async_scheduling is None:
            return parse_version(self.vllm_version) >= (0, 14, 0)
        return self.async_scheduling

    @property
    def blanks_first(self) -> bool:
        """Whether freed blocks without a hash are reused first, or all in plain LRU order.

        `BlockPool.free_blocks` (vllm/v1/core/block_pool.py) appends them all up to 0.23 and prepends those without a
        hash from 0.24.
        """
        return parse_version(self.vllm_version) >= (0, 24, 0)

    @property
    def lone_request_unthrottled(self) -> bool:
        """Whether `long_prefill_token_threshold` spares a request that is alone.

        It does from 0.31 (`Scheduler.schedule` in vllm/v1/core/sched/scheduler.py counts who is eligible); 0.30 caps
        every request.
        """
        return parse_version(self.vllm_version) >= (0, 31, 0)

    @property
    def reserves_full(self) -> bool:
        """`scheduler_reserve_full_isl`, which vLLM knows from 0.19; before, admission needs room for one chunk."""
        return self.scheduler_reserve_full_isl and parse_version(self.vllm_version) >= (0, 19, 0)

    @property
    def margin_blocks(self) -> int:
        """Blocks that `watermark` keeps free at admission; vLLM knows it from 0.24."""
        known = parse_version(self.vllm_version) >= (0, 24, 0)
        return int(self.watermark * self.num_gpu_blocks) if known else 0

    @property
    def reports_hits(self) -> bool:
        """Whether `kv_cache_report_mode: full` is known (`Request` in vllm/v1/request.py): from 0.26."""
        return parse_version(self.vllm_version) >= (0, 26, 0)

    @property
    def skipped_first(self) -> bool:
        """Whether (fcfs) a request skipped for want of a LoRA slot stands before those preempted meanwhile.

        It does where skipped requests have a queue of their own (`Scheduler.skipped_waiting` in
        vllm/v1/core/sched/scheduler.py): 0.18 to 0.30. Before and after they return to the waiting queue's head.
        """
        return (0, 18, 0) <= parse_version(self.vllm_version) < (0, 31, 0)

    @property
    def loras_of_running(self) -> bool:
        """Whether every running request keeps its LoRA slot: from 0.33; before, only those scheduled in this step.

        (`Scheduler.schedule` in vllm/v1/core/sched/scheduler.py.) It matters when scheduling is asynchronous: a request
        whose last token is on its way runs, but is not scheduled.
        """
        return parse_version(self.vllm_version) >= (0, 33, 0)

    @classmethod
    def build(cls, **values: Any) -> "EngineConfig":  # noqa: ANN401 - field values, validated here
        """The configuration, or EngineConfigError with one line that names the first bad field."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(p) for p in first["loc"])
            message = str(first["msg"]).removeprefix("Value error, ")
            raise EngineConfigError(f"{where} {first['input']!r}: {message}" if where else message) from None
