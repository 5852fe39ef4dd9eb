"""The custom resource `MockEngine`: a set of pods that behave as vLLM servers do, without a GPU.

Cross-field rules stand twice: as CEL, so that the API server refuses a bad resource at once, and as
checks here, so that `kvsync up` and the operator on a cluster without CEL refuse the same with the
same field names.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import (
    Condition,
    Duration,
    Model,
    PodTemplate,
    Port,
    duplicates,
    rules,
    with_defaults,
)
from kvsync_operator.models.faults import FaultRule

__all__ = [
    "Cache",
    "CustomLatency",
    "Disk",
    "Events",
    "HostOffload",
    "Latency",
    "Lora",
    "MockEngineSpec",
    "MockEngineStatus",
    "ModelSpec",
    "Scheduler",
]

_Bandwidth = Annotated[int, Field(ge=1, le=10_000_000)]
_Microseconds = Annotated[int, Field(ge=0, le=60_000_000)]
_Coefficient = Annotated[int, Field(ge=0, le=1_000_000_000)]
_ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=128)]


class Lora(Model):
    """A LoRA adapter the engine offers beside its base model."""

    name: _ModelName
    """Name under which requests ask for it."""
    path: Annotated[str, StringConstraints(pattern=r"^[^\s=,]+$", max_length=256)] | None = None
    """Path vLLM would load it from; part of the block hash since vLLM 0.31. Default: the name."""


class ModelSpec(Model):
    """What is served."""

    name: _ModelName
    """Model name in the API and in the index. Cannot be changed: a new model is a new engine."""
    loras: Annotated[
        list[Lora], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"], "default": []})
    ] = Field(default_factory=list)
    """LoRA adapters on top of it."""

    @model_validator(mode="after")
    def _loras_differ(self) -> Self:
        if twice := duplicates([lora.name for lora in self.loras]):
            raise ValueError(f"loras: the name {twice[0]!r} occurs more than once")
        if self.name in [lora.name for lora in self.loras]:
            raise ValueError(f"loras: {self.name!r} is the name of the base model")
        return self


class Disk(Model):
    """The disk tier (G3) behind the host tier."""

    blocks: Annotated[int, Field(ge=1, le=67_108_864)]
    """Capacity in blocks, of each rank."""
    bandwidth_megabytes_per_second: _Bandwidth = 7_000
    """Bandwidth of the disk, shared by all ranks of a pod."""


class HostOffload(Model):
    """The host memory tier (G2): blocks evicted from the device are kept there and brought back."""

    blocks: Annotated[int, Field(ge=1, le=67_108_864)]
    """Capacity in blocks, of each rank."""
    block_kibibytes: Annotated[int, Field(ge=1, le=1_073_741_824)] | None = None
    """Size of one block; with the bandwidth it decides how long a transfer takes. Default: 128 KiB a token."""
    bandwidth_megabytes_per_second: _Bandwidth = 14_000
    """Bandwidth from device to host, and as much back."""
    batch_blocks: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Blocks copied as one transfer."""
    max_concurrent_batches: Annotated[int, Field(ge=1, le=1024)] = 4
    """Transfers at a time; more wait."""
    transfers: Literal["Timed", "Instant"] = "Timed"
    """Whether transfers take time."""
    event_form: Literal["Full", "HashOnly"] = "Full"
    """Stored events of the lower tiers: with their tokens, or hashes only, as vLLM's offload connector sends them."""
    disk: Disk | None = None
    """A disk tier behind the host tier."""


class Cache(Model):
    """The KV cache."""

    block_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Tokens a block."""
    num_gpu_blocks: Annotated[int, Field(ge=2, le=10_000_000)] = 4096
    """Blocks on the device, the null block included."""
    hash_algorithm: Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"] = "sha256"
    """How blocks are hashed (vLLM's `--prefix-caching-hash-algo`)."""
    hash_seed: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$", max_length=10)] | None = None
    """Seed of the first parent hash (vLLM takes it from PYTHONHASHSEED). Without one it is vLLM's own choice."""
    host_offload: HostOffload | None = None
    """Lower tiers; without it evicted blocks are gone."""


class Scheduler(Model):
    """The continuous-batching scheduler; names and defaults are vLLM's."""

    max_num_seqs: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Most requests running at a time."""
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 2048
    """Token budget of one step."""
    max_model_len: Annotated[int, Field(ge=2, le=16_777_216)] = 32_768
    """Longest request in tokens, prompt and output together."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Order of admission."""


class CustomLatency(Model):
    """A latency model of your own: prefill quadratic in new tokens, decode linear in sequences and in active KV."""

    prefill_base_us: _Microseconds = 0
    """Microseconds of every step with prompt tokens."""
    prefill_per_token_ns: _Coefficient = 0
    """Nanoseconds more for each new token."""
    prefill_per_token_squared_ps: _Coefficient = 0
    """Picoseconds more for each squared new token."""
    decode_base_us: _Microseconds = 0
    """Microseconds of every step with decoding sequences."""
    decode_per_sequence_ns: _Coefficient = 0
    """Nanoseconds more for each decoding sequence."""
    decode_per_kv_token_ps: _Coefficient = 0
    """Picoseconds more for each token of context the batch attends to."""


class Latency(Model):
    """How long steps take."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "!(has(self.profile) && has(self.custom))",
                "latency.profile and latency.custom exclude each other",
            ),
            (
                "!has(self.timeScale) || !self.timeScale.matches('^[0.]+$')",
                "latency.timeScale must be more than 0; profile none takes no time",
            ),
        )
    }

    profile: (
        Literal[
            "none",
            "quadratic",
            "l4-llama3-8b",
            "a100-llama3-8b",
            "h100-llama3-8b",
            "h200-llama3-8b",
            "h100x4-llama3-70b",
        ]
        | None
    ) = None
    """A built-in profile; `none`, the default, takes no time at all."""
    custom: CustomLatency | None = None
    """Coefficients in place of a profile."""
    jitter_percent: Annotated[int, Field(ge=0, le=99)] = 0
    """A step takes its time give or take at most this share, decided by the seed."""
    time_scale: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6})?$", max_length=11)] = "1"
    """Factor on every delay, as a decimal number in quotes: `"0.1"` runs ten times faster than life."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.profile is not None and self.custom is not None:
            raise ValueError("profile and custom exclude each other")
        if float(self.time_scale) <= 0:
            raise ValueError(f"timeScale: {self.time_scale!r} must be more than 0; profile none takes no time")
        return self


class Events(Model):
    """The KV event stream."""

    port: Port = 5557
    """Port of rank 0's event socket; rank n uses port + n."""
    replay_port: Port = 5558
    """Port of rank 0's replay socket; rank n uses replayPort + n. With several ranks the ranges may not overlap."""
    topic: Annotated[str, StringConstraints(pattern=r"^[^\s]*$", max_length=128)] = ""
    """Topic frame of every message."""
    wire_version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$", max_length=11)] = (
        "0.33.0"
    )
    """The vLLM version whose encoding, fields and replay frames are used."""
    buffer_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Batches kept for replay."""
    data_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Ranks a pod, each with its own cache and event stream."""


_PORTS_APART = (
    "self.events.port + self.events.dataParallelSize <= self.events.replayPort"
    " || self.events.replayPort + self.events.dataParallelSize <= self.events.port"
)
_APART_MESSAGE = (
    "spec.events.replayPort: the replay ports (replayPort up to replayPort + dataParallelSize - 1)"
    " overlap the event ports (port up to port + dataParallelSize - 1)"
)
_FITS_MESSAGE = (
    "spec.scheduler.maxModelLen: one request of this length must fit into"
    " (spec.cache.numGpuBlocks - 1) * spec.cache.blockSize tokens"
)
_HTTP_APART = (
    f"(self.events.port > {names.HTTP_PORT}"
    f" || self.events.port + self.events.dataParallelSize <= {names.HTTP_PORT})"
    f" && (self.events.replayPort > {names.HTTP_PORT}"
    f" || self.events.replayPort + self.events.dataParallelSize <= {names.HTTP_PORT})"
)
_PORTS_END = (
    "self.events.port + self.events.dataParallelSize <= 65536"
    " && self.events.replayPort + self.events.dataParallelSize <= 65536"
)


class MockEngineSpec(Model):
    """What the engine pods are to be."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("self.model.name == oldSelf.model.name", "spec.model.name cannot be changed: make a new MockEngine"),
            (
                "(self.cache.numGpuBlocks - 1) * self.cache.blockSize >= self.scheduler.maxModelLen",
                _FITS_MESSAGE,
            ),
            (
                "self.scheduler.maxNumBatchedTokens >= self.scheduler.maxNumSeqs",
                "spec.scheduler.maxNumBatchedTokens must not be less than spec.scheduler.maxNumSeqs",
            ),
            (
                _PORTS_APART,
                _APART_MESSAGE,
            ),
            (_HTTP_APART, f"spec.events: port {names.HTTP_PORT} is the engine's HTTP port"),
            (_PORTS_END, "spec.events: port + dataParallelSize goes beyond 65535"),
            (
                "!self.model.loras.exists(lora, lora.name == self.model.name)",
                "spec.model.loras: an adapter has the name of the base model",
            ),
        )
    }

    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of pods."""
    model: ModelSpec
    """What is served."""
    cache: Cache = Field(default_factory=Cache, json_schema_extra=with_defaults())
    """The KV cache."""
    scheduler: Scheduler = Field(default_factory=Scheduler, json_schema_extra=with_defaults())
    """The scheduler."""
    latency: Latency = Field(default_factory=Latency, json_schema_extra=with_defaults())
    """How long steps take."""
    events: Events = Field(default_factory=Events, json_schema_extra=with_defaults())
    """The KV event stream."""
    debug: Literal["Enabled", "Disabled"] = "Disabled"
    """Whether the pods serve their block table and fault plane under `/debug`; audits and fault tests need it."""
    faults: Annotated[list[FaultRule], Field(max_length=64)] = Field(default_factory=list)
    """Faults the pods start with."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of everything random in the pods, such as generated text."""
    termination_grace: Duration = "30s"
    """How long a pod may finish its requests after it was told to stop."""
    template: PodTemplate = Field(default_factory=PodTemplate, json_schema_extra=with_defaults())
    """How the pods are run."""

    @model_validator(mode="after")
    def _capacity_holds_a_request(self) -> Self:
        capacity = (self.cache.num_gpu_blocks - 1) * self.cache.block_size
        if capacity < self.scheduler.max_model_len:
            raise ValueError(
                f"scheduler.maxModelLen: {self.scheduler.max_model_len} tokens do not fit into the cache of"
                f" (numGpuBlocks - 1) * blockSize = {capacity} tokens"
            )
        if self.scheduler.max_num_batched_tokens < self.scheduler.max_num_seqs:
            raise ValueError(
                f"scheduler.maxNumBatchedTokens: {self.scheduler.max_num_batched_tokens} is less than"
                f" maxNumSeqs {self.scheduler.max_num_seqs}"
            )
        return self

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        events, ranks = self.events, self.events.data_parallel_size
        live, replay = range(events.port, events.port + ranks), range(events.replay_port, events.replay_port + ranks)
        if set(live) & set(replay):
            raise ValueError(
                f"events.replayPort: the replay ports {_span(replay)} overlap the event ports {_span(live)};"
                f" with {ranks} rank(s) set replayPort to {live.stop} or more"
            )
        if names.HTTP_PORT in live or names.HTTP_PORT in replay:
            raise ValueError(f"events: port {names.HTTP_PORT} is the engine's HTTP port")
        if max(live.stop, replay.stop) > 65_536:
            raise ValueError("events: port + dataParallelSize goes beyond 65535")
        return self


def _span(ports: range) -> str:
    return f"{ports.start}-{ports.stop - 1}" if len(ports) > 1 else str(ports.start)


class MockEngineStatus(Model):
    """What was observed."""

    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})] = (
        Field(default_factory=list)
    )
    """`Ready`: every pod is up and of the current spec. `Progressing`: a change is under way.
    `Degraded`: something needs attention."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec this status belongs to."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that exist."""
    updated_replicas: Annotated[int, Field(ge=0)] = 0
    """Pods of the current spec."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Pods that are ready."""
    selector: Annotated[str, StringConstraints(max_length=512)] = ""
    """Label selector of the pods, for `kubectl scale` and autoscalers."""
