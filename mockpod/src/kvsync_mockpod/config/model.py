"""The pod's configuration as one frozen model, validated once. Every field is a flag and a YAML key.

Fields without the prefix `mock_` have the names of `vllm serve`, so that a Deployment can exchange one for the other.
`config.flags` generates the command line from the fields and their descriptions.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from kvsync_mockpod.config.events import KVEventsConfig
from kvsync_mockpod.config.lengths import AUTO, parse_length
from kvsync_mockpod.config.parallel import ParallelFlags, RankPlan, plan_ranks


class LoraModule(BaseModel):
    """An adapter that the pod serves from the start: `--lora-modules NAME=PATH` or a JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=256)
    path: str = Field(min_length=1, max_length=4096)
    base_model_name: str | None = None


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _json_list(value: object) -> object:
    """The list that a text in JSON stands for; other values are returned as they are."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("not a JSON list, such as '[\"*\"]'") from None


_MODEL_LEN = 32_768
_BLOCKS = 8192
_BLOCK_SIZE = 16
Names = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
JsonNames = Annotated[tuple[str, ...], BeforeValidator(_json_list)]


class PodConfig(BaseModel):
    """All settings of a pod. Sizes are in tokens or blocks, times in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # options of vllm serve
    model: str = Field("kvsync/mock", min_length=1, max_length=256, description="model name; nothing is loaded")
    served_model_name: Names = Field((), max_length=16, description="names clients may use; default: the model")
    host: str = Field("0.0.0.0", min_length=1, description="HTTP address")
    port: int = Field(8000, ge=0, le=65_535, description="HTTP port; 0 lets the system choose")
    api_key: Names = Field((), max_length=64, description="keys accepted under /v1; without any, keys are not checked")
    block_size: int = Field(_BLOCK_SIZE, ge=1, le=4096, description="tokens per block")
    num_gpu_blocks_override: int = Field(
        _BLOCKS, ge=2, le=2**24, description="device blocks; block 0 is the null block"
    )
    max_num_seqs: int = Field(256, ge=1, le=65_536, description="maximum number of running requests")
    max_num_batched_tokens: Annotated[int, BeforeValidator(parse_length)] = Field(
        2048, ge=1, le=2**24, description="token budget per step"
    )
    max_model_len: int = Field(
        _MODEL_LEN,
        ge=2,
        le=2**24,
        description="maximum length of prompt and answer, in tokens; also 8k, 8K, auto or -1",
    )
    scheduling_policy: Literal["fcfs", "priority"] = Field("fcfs", description="order of the waiting queue")
    enable_prefix_caching: bool = Field(True, description="reuse blocks of earlier prompts")
    prefix_caching_hash_algo: (
        Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor", "builtin", "sha256_cbor_64bit"] | None
    ) = Field(None, description="block hash algorithm; default: that of the version (sha256 since 0.10.2)")
    enable_chunked_prefill: bool = Field(True, description="split long prompts over several steps")
    async_scheduling: bool | None = Field(None, description="schedule one step ahead; default: that of the version")
    long_prefill_token_threshold: int = Field(0, ge=0, description="largest prefill chunk of one request; 0: no limit")
    scheduler_reserve_full_isl: bool = Field(True, description="admit a request only if all its tokens fit")
    watermark: float = Field(0.0, ge=0.0, lt=1.0, description="share of the blocks kept free at admission")
    kv_events_config: KVEventsConfig | None = Field(None, description="JSON; default: events on, ports 5557 and 5558")
    data_parallel_size: int = Field(1, ge=1, le=4096, description="ranks in all, each with its own engine")
    data_parallel_size_local: int | None = Field(None, ge=1, le=256, description="ranks in this pod; default: all")
    data_parallel_rank: int | None = Field(
        None, ge=0, le=4095, description="the pod's only rank, with load balancing outside"
    )
    data_parallel_start_rank: int | None = Field(
        None, ge=0, le=4095, description="first rank of this pod, with --data-parallel-size-local"
    )
    data_parallel_hybrid_lb: bool = Field(
        False, description="serve only the ranks of this pod; implied by a start rank"
    )
    data_parallel_external_lb: bool = Field(False, description="serve one rank; implied by --data-parallel-rank")
    enable_lora: bool = Field(False, description="accept LoRA adapters; implied by --lora-modules")
    max_loras: int = Field(1, ge=1, le=1024, description="maximum number of adapters in a batch")
    lora_modules: tuple[LoraModule, ...] = Field((), max_length=1024, description="NAME=PATH or JSON, repeatable")
    enable_prompt_tokens_details: bool = Field(False, description="report cached_tokens in usage")
    enable_server_load_tracking: bool = Field(True, description="count requests for /load")
    ssl_keyfile: Path | None = Field(None, description="key of the certificate")
    ssl_certfile: Path | None = Field(None, description="certificate; with it, the pod serves HTTPS")
    ssl_ca_certs: Path | None = Field(None, description="certificates that sign those of clients")
    ssl_cert_reqs: int = Field(0, ge=0, le=2, description="certificate of clients: 0 none, 1 optional, 2 required")
    ssl_ciphers: str | None = Field(None, min_length=1, description="ciphers of TLS 1.2, in the notation of OpenSSL")
    allowed_origins: JsonNames = Field((), description="JSON list of origins whose pages may ask (CORS); * for all")
    allowed_methods: JsonNames = Field(("*",), description="JSON list of methods that these pages may use")
    allowed_headers: JsonNames = Field(("*",), description="JSON list of headers that these pages may send")
    allow_credentials: bool = Field(False, description="let these pages send cookies and keys")
    enable_request_id_headers: bool = Field(False, description="return X-Request-Id, or make one")
    disable_fastapi_docs: bool = Field(False, description="do not serve /openapi.json")
    seed: int = Field(0, description="used if --mock-seed is not given")

    # options of the mock pod
    mock_latency: str = Field(
        "none", min_length=1, description="latency profile or custom formula (JSON); none: no delays"
    )
    mock_latency_jitter: float = Field(0.0, ge=0.0, lt=1.0, description="relative variation of step times")
    mock_time_scale: float = Field(1.0, gt=0.0, le=1e6, description="factor on every simulated duration")
    mock_seed: int | None = Field(None, ge=0, le=2**63 - 1, description="seed of generated text and jitter")
    mock_wire_version: str = Field("newest", description="vLLM version whose event format is used")
    mock_removals: Literal["each_copy", "last_copy"] = Field(
        "each_copy",
        description="removals announced for a block with several copies; last_copy: as proposed in vllm#55092",
    )
    mock_hash_seed: str | None = Field(None, description="default: PYTHONHASHSEED")
    mock_vocab_size: int = Field(
        2**32, ge=16, le=2**32, description="prompts with a token id from here on are refused; default: every 32-bit id"
    )
    mock_output_tokens: int = Field(
        128, ge=1, le=2**20, description="mean length of an answer that ends by itself, in tokens"
    )
    mock_max_waiting: int = Field(4096, ge=1, le=2**20, description="waiting requests per rank; further ones get 429")
    mock_max_body_bytes: int = Field(
        32 * 2**20, ge=1024, le=2**31, description="largest request body; larger ones get 413"
    )
    mock_drain_timeout: float = Field(
        25.0, ge=0.0, le=3600.0, description="seconds that running requests get after SIGTERM"
    )
    mock_stall_timeout: float = Field(
        60.0,
        gt=0.0,
        le=86_400.0,
        description="seconds after which a client that does not read its stream is disconnected",
    )
    mock_debug: bool = Field(False, description="serve /debug/kv and /debug/faults")
    mock_debug_token_file: Path | None = Field(
        None, description="file with bearer tokens of /debug/kv, one per line; default: not checked"
    )
    mock_fault_token_file: Path | None = Field(
        None, description="file with bearer tokens of /debug/faults, one per line; default: not checked"
    )
    mock_faults: Path | None = Field(None, description="YAML or JSON file with a fault plan")
    mock_curve_key: Path | None = Field(
        None, description="file with a CURVE secret key, which encrypts the event and replay sockets"
    )
    mock_curve_clients: Path | None = Field(
        None, description="file with the CURVE public keys of admitted clients; default: all that know the pod's key"
    )
    mock_host_blocks: int = Field(0, ge=0, le=2**26, description="blocks in the host tier; 0: no lower tiers")
    mock_disk_blocks: int = Field(0, ge=0, le=2**26, description="blocks in the disk tier; 0: no disk tier")
    mock_block_bytes: int | None = Field(
        None, ge=1, le=2**40, description="bytes per block in transfers; default: 128 KiB per token (Llama 3.1 8B)"
    )
    mock_host_bandwidth: float = Field(
        14e9, gt=0.0, le=1e15, description="bytes/s in each direction between device and host"
    )
    mock_disk_bandwidth: float = Field(7e9, gt=0.0, le=1e15, description="bytes/s of the disk, shared by all ranks")
    mock_offload_batch_blocks: int = Field(32, ge=1, le=65_536, description="blocks copied as one transfer")
    mock_offload_concurrency: int = Field(
        4, ge=1, le=1024, description="maximum number of concurrent offload transfers"
    )
    mock_tier_transfers: Literal["timed", "instant"] = Field("timed", description="whether transfers take time")
    mock_tier_events: Literal["full", "hash_only"] = Field(
        "full", description="stored events of lower tiers: with tokens, or with hashes only as vLLM's offload connector"
    )
    mock_tier_eviction: Literal["lru", "lineage"] = Field(
        "lru", description="lower tiers evict the least recently used block; lineage: never before its children"
    )
    mock_tier_duplicates: Literal["refuse", "allow"] = Field(
        "refuse", description="whether host memory takes a further copy of a block that it has"
    )
    mock_tier_frequency: Literal["small", "medium", "large"] | None = Field(
        None, description="size of the sketch that counts how often blocks are used; default: not counted"
    )
    mock_offload_min_uses: int = Field(
        0, ge=0, le=255, description="blocks used less often are not copied to host memory; needs --mock-tier-frequency"
    )

    @model_validator(mode="before")
    @classmethod
    def _resolve_length(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Convert a written length; `auto` is the default length, or what the cache can hold if that is less."""
        if "max_model_len" not in given:
            return given
        length = parse_length(given["max_model_len"])
        if str(length) == str(AUTO):
            blocks, size = given.get("num_gpu_blocks_override", _BLOCKS), given.get("block_size", _BLOCK_SIZE)
            length = min(_MODEL_LEN, (int(blocks) - 1) * int(size))
        return {**given, "max_model_len": length}

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
                "every running request needs one token per step"
            )
        if self.mock_disk_blocks and not self.mock_host_blocks:
            raise ValueError("mock_disk_blocks: a disk tier needs a host tier (mock_host_blocks)")
        if self.mock_offload_min_uses and self.mock_tier_frequency is None:
            raise ValueError("mock_offload_min_uses: uses are counted only with mock_tier_frequency")
        if self.mock_host_blocks and not self.enable_prefix_caching:
            raise ValueError("mock_host_blocks: lower tiers need enable_prefix_caching")
        if self.ssl_keyfile is not None and self.ssl_certfile is None:
            raise ValueError("ssl_keyfile: needs ssl_certfile")
        _ = self.rank_plan
        names = [module.name for module in self.lora_modules]
        taken = set(self.names)
        for name in names:
            if name in taken:
                raise ValueError(f"lora_modules: the name {name!r} is used twice")
            taken.add(name)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The model names that the base model answers to; the first is the one shown."""
        return self.served_model_name or (self.model,)

    @property
    def rank_plan(self) -> RankPlan:
        """The data-parallel ranks that run in this pod."""
        return plan_ranks(
            ParallelFlags(
                size=self.data_parallel_size,
                size_local=self.data_parallel_size_local,
                rank=self.data_parallel_rank,
                start_rank=self.data_parallel_start_rank,
                hybrid_lb=self.data_parallel_hybrid_lb,
                external_lb=self.data_parallel_external_lb,
            )
        )

    @property
    def lora_enabled(self) -> bool:
        """Whether adapters can be used."""
        return self.enable_lora or bool(self.lora_modules)

    @property
    def text_seed(self) -> int:
        """The seed of generated text."""
        return self.seed if self.mock_seed is None else self.mock_seed

    @property
    def events(self) -> KVEventsConfig:
        """The event settings. Without `--kv-events-config` the pod publishes events and serves replay."""
        if self.kv_events_config is not None:
            return self.kv_events_config
        return KVEventsConfig.model_validate({"enable_kv_cache_events": True, "replay_endpoint": "tcp://*:5558"})
