"""The pod's configuration: one frozen model, validated once; every field is a flag and a YAML key.

The names before `mock_` are those of `vllm serve`, so that a Deployment can swap one for the other; ours
are prefixed. `config.flags` makes the command line from the fields, so a field documented here is a flag
documented there.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from kvsync_mockpod.config.events import KVEventsConfig


class LoraModule(BaseModel):
    """An adapter the pod serves from the start: `--lora-modules NAME=PATH` or a JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=256)
    path: str = Field(min_length=1, max_length=4096)
    base_model_name: str | None = None


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]


class PodConfig(BaseModel):
    """Everything a pod is started with. Sizes are in tokens or blocks, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # what vllm serve has
    model: str = Field("kvsync/mock", min_length=1, max_length=256, description="model name; nothing is loaded")
    served_model_name: Names = Field((), max_length=16, description="names clients may use; default: the model")
    host: str = Field("0.0.0.0", min_length=1, description="HTTP address")
    port: int = Field(8000, ge=0, le=65_535, description="HTTP port; 0 lets the system choose")
    api_key: Names = Field((), max_length=64, description="keys accepted under /v1; none: no check")
    block_size: int = Field(16, ge=1, le=4096, description="tokens in a block")
    num_gpu_blocks_override: int = Field(8192, ge=2, le=2**24, description="device blocks; block 0 is the null block")
    max_num_seqs: int = Field(256, ge=1, le=65_536, description="requests running at most")
    max_num_batched_tokens: int = Field(2048, ge=1, le=2**24, description="token budget of a step")
    max_model_len: int = Field(32_768, ge=2, le=2**24, description="prompt and answer together, in tokens")
    scheduling_policy: Literal["fcfs", "priority"] = Field("fcfs", description="order of the waiting queue")
    enable_prefix_caching: bool = Field(True, description="reuse blocks of earlier prompts")
    prefix_caching_hash_algo: (
        Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor", "builtin", "sha256_cbor_64bit"] | None
    ) = Field(None, description="block hash; default: the version's (sha256 since 0.10.2)")
    enable_chunked_prefill: bool = Field(True, description="let a prompt take several steps")
    async_scheduling: bool | None = Field(None, description="schedule ahead of the output; default: as the version")
    long_prefill_token_threshold: int = Field(0, ge=0, description="largest prefill chunk beside others; 0: no limit")
    scheduler_reserve_full_isl: bool = Field(True, description="admit only what fits whole")
    watermark: float = Field(0.0, ge=0.0, lt=1.0, description="share of blocks kept free at admission")
    kv_events_config: KVEventsConfig | None = Field(None, description="JSON; default: events on, ports 5557 and 5558")
    data_parallel_size: int = Field(1, ge=1, le=256, description="ranks in this pod, each an engine of its own")
    data_parallel_rank: int = Field(0, ge=0, le=4095, description="rank of the pod's first engine")
    enable_lora: bool = Field(False, description="accept LoRA adapters; implied by --lora-modules")
    max_loras: int = Field(1, ge=1, le=1024, description="adapters in one batch")
    lora_modules: tuple[LoraModule, ...] = Field((), max_length=1024, description="NAME=PATH or JSON, repeatable")
    enable_prompt_tokens_details: bool = Field(False, description="report cached_tokens in usage")
    enable_server_load_tracking: bool = Field(True, description="count requests for /load")
    seed: int = Field(0, description="as --mock-seed, which wins when given")

    # ours
    mock_latency: str = Field(
        "none", min_length=1, description="latency profile or custom JSON; none: as fast as it can"
    )
    mock_latency_jitter: float = Field(0.0, ge=0.0, lt=1.0, description="relative spread of every step's time")
    mock_time_scale: float = Field(1.0, gt=0.0, le=1e6, description="factor on every simulated duration")
    mock_seed: int | None = Field(None, ge=0, le=2**63 - 1, description="decides generated text and jitter")
    mock_wire_version: str = Field("newest", description="vLLM version whose event form is spoken")
    mock_hash_seed: str | None = Field(None, description="default: PYTHONHASHSEED")
    mock_output_tokens: int = Field(128, ge=1, le=2**20, description="mean answer length where nothing else ends it")
    mock_max_waiting: int = Field(4096, ge=1, le=2**20, description="waiting requests a rank holds; more is 429")
    mock_max_body_bytes: int = Field(32 * 2**20, ge=1024, le=2**31, description="largest request body; more is 413")
    mock_drain_timeout: float = Field(25.0, ge=0.0, le=3600.0, description="seconds running requests get at SIGTERM")
    mock_stall_timeout: float = Field(
        60.0, gt=0.0, le=86_400.0, description="seconds a client may stop reading a stream"
    )
    mock_debug: bool = Field(False, description="serve /debug/kv and /debug/faults")
    mock_faults: Path | None = Field(None, description="YAML or JSON file with a fault plan")
    mock_host_blocks: int = Field(0, ge=0, le=2**26, description="host tier size; 0: no lower tiers")
    mock_disk_blocks: int = Field(0, ge=0, le=2**26, description="disk tier size behind the host tier; 0: none")
    mock_block_bytes: int | None = Field(
        None, ge=1, le=2**40, description="size of a block in transfers; default: 128 KiB a token (Llama 3.1 8B)"
    )
    mock_host_bandwidth: float = Field(14e9, gt=0.0, le=1e15, description="bytes/s from device to host, and back")
    mock_disk_bandwidth: float = Field(7e9, gt=0.0, le=1e15, description="bytes/s of the disk, shared by the ranks")
    mock_offload_batch_blocks: int = Field(32, ge=1, le=65_536, description="blocks copied as one transfer")
    mock_offload_concurrency: int = Field(4, ge=1, le=1024, description="offload transfers at once")
    mock_tier_transfers: Literal["timed", "instant"] = Field("timed", description="whether transfers take time")
    mock_tier_events: Literal["full", "hash_only"] = Field(
        "full", description="lower tiers' stored events: with tokens, or hashes only as vLLM's offload connector"
    )

    @model_validator(mode="after")
    def _cross_checks(self) -> "PodConfig":
        capacity = (self.num_gpu_blocks_override - 1) * self.block_size
        if self.max_model_len > capacity:
            raise ValueError(
                f"max_model_len: {self.max_model_len} tokens do not fit {self.num_gpu_blocks_override - 1} usable "
                f"blocks of {self.block_size} ({capacity} tokens); raise num_gpu_blocks_override or lower max_model_len"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise ValueError(
                f"max_num_batched_tokens: {self.max_num_batched_tokens} is below max_model_len "
                f"{self.max_model_len}, which needs enable_chunked_prefill"
            )
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens: {self.max_num_batched_tokens} is below max_num_seqs {self.max_num_seqs}; "
                "every running request needs one token a step"
            )
        if self.mock_disk_blocks and not self.mock_host_blocks:
            raise ValueError("mock_disk_blocks: a disk tier needs a host tier before it (mock_host_blocks)")
        if self.mock_host_blocks and not self.enable_prefix_caching:
            raise ValueError("mock_host_blocks: lower tiers need enable_prefix_caching")
        names = [module.name for module in self.lora_modules]
        taken = set(self.names)
        for name in names:
            if name in taken:
                raise ValueError(f"lora_modules: the name {name!r} is used twice")
            taken.add(name)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The names the base model answers to; the first is the one shown."""
        return self.served_model_name or (self.model,)

    @property
    def lora_enabled(self) -> bool:
        """Whether adapters can be used at all."""
        return self.enable_lora or bool(self.lora_modules)

    @property
    def text_seed(self) -> int:
        """The seed of generated text."""
        return self.seed if self.mock_seed is None else self.mock_seed

    @property
    def events(self) -> KVEventsConfig:
        """The event settings; without `--kv-events-config` a mock publishes and replays."""
        if self.kv_events_config is not None:
            return self.kv_events_config
        return KVEventsConfig.model_validate({"enable_kv_cache_events": True, "replay_endpoint": "tcp://*:5558"})
