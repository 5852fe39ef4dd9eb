"""The custom resource `MockEngine`: a set of pods that behave like vLLM servers without a GPU.

A rule between several fields is written twice: as a CEL expression, by which the API server refuses the resource, and
as a validator, by which `kvsync up` and the operator refuse it with the same field names.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from kvsync_operator import names
from kvsync_operator.models.common import (
    Condition,
    CurveKey,
    DnsName,
    Duration,
    DurationBounds,
    Model,
    PodTemplate,
    Port,
    duplicates,
    rules,
    with_defaults,
)
from kvsync_operator.models.faults import FaultRule

_Bandwidth = Annotated[int, Field(ge=1, le=10_000_000)]
_Microseconds = Annotated[int, Field(ge=0, le=60_000_000)]
_Coefficient = Annotated[int, Field(ge=0, le=1_000_000_000)]
_ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=128)]


class Lora(Model):
    """A LoRA adapter of the base model."""

    name: _ModelName
    """Name of the adapter in requests."""
    path: Annotated[str, StringConstraints(pattern=r"^[^\s=,]+$", max_length=256)] | None = None
    """Path from which vLLM would load the adapter; part of the block hash since vLLM 0.31. The default is the name."""


class ModelSpec(Model):
    """The model that the engine serves."""

    name: _ModelName
    """Name of the model in the API and in the index. It cannot be changed; another model needs a new MockEngine."""
    loras: Annotated[
        list[Lora], Field(max_length=64, json_schema_extra={"x-list-map-keys": ["name"], "default": []})
    ] = Field(default_factory=list)
    """LoRA adapters of the model."""

    @model_validator(mode="after")
    def _loras_differ(self) -> Self:
        if twice := duplicates([lora.name for lora in self.loras]):
            raise ValueError(f"loras: the name {twice[0]!r} occurs more than once")
        if self.name in [lora.name for lora in self.loras]:
            raise ValueError(f"loras: {self.name!r} is the name of the base model")
        return self


class Disk(Model):
    """The disk tier (G3), to which blocks evicted from the host tier move."""

    blocks: Annotated[int, Field(ge=1, le=67_108_864)]
    """Capacity in blocks, of each rank."""
    bandwidth_megabytes_per_second: _Bandwidth = 7_000
    """Bandwidth of the disk in MB/s, shared by all ranks of a pod."""


class HostOffload(Model):
    """The host memory tier (G2), to which blocks evicted from the device move, and from which a hit loads them."""

    blocks: Annotated[int, Field(ge=1, le=67_108_864)]
    """Capacity in blocks, of each rank."""
    block_kibibytes: Annotated[int, Field(ge=1, le=1_073_741_824)] | None = None
    """Size of one block in KiB, which determines the duration of transfers. The default is 128 KiB per token."""
    bandwidth_megabytes_per_second: _Bandwidth = 14_000
    """Bandwidth between device and host in MB/s, in each direction."""
    batch_blocks: Annotated[int, Field(ge=1, le=65_536)] = 32
    """Number of blocks per transfer."""
    max_concurrent_batches: Annotated[int, Field(ge=1, le=1024)] = 4
    """Number of concurrent transfers; further transfers wait."""
    transfers: Literal["Timed", "Instant"] = "Timed"
    """Whether transfers take time."""
    event_form: Literal["Full", "HashOnly"] = "Full"
    """Whether stored events of the lower tiers carry tokens, or only hashes like those of vLLM's offload connector."""
    disk: Disk | None = None
    """A disk tier below the host tier."""


class Cache(Model):
    """The KV cache of each rank."""

    block_size: Annotated[int, Field(ge=1, le=1024)] = 16
    """Number of tokens per block."""
    num_gpu_blocks: Annotated[int, Field(ge=2, le=10_000_000)] = 4096
    """Number of blocks on the device, including the null block."""
    hash_algorithm: Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"] = "sha256"
    """Algorithm of the block hashes (vLLM's `--prefix-caching-hash-algo`)."""
    hash_seed: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,10}$", max_length=10)] | None = None
    """Seed of the first parent hash, which vLLM reads from PYTHONHASHSEED. By default the seed is chosen as in vLLM."""
    host_offload: HostOffload | None = None
    """Tiers below the device. Without them an evicted block is lost."""


class Scheduler(Model):
    """The continuous-batching scheduler, with the parameters and defaults of vLLM."""

    max_num_seqs: Annotated[int, Field(ge=1, le=65_536)] = 256
    """Largest number of requests that run at the same time."""
    max_num_batched_tokens: Annotated[int, Field(ge=1, le=1_048_576)] = 2048
    """Largest number of tokens per step."""
    max_model_len: Annotated[int, Field(ge=2, le=16_777_216)] = 32_768
    """Largest number of tokens per request, prompt and output together."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Order in which waiting requests are admitted."""


class CustomLatency(Model):
    """A custom latency model. Prefill is quadratic in new tokens; decode is linear in sequences and in KV tokens."""

    prefill_base_us: _Microseconds = 0
    """Duration of every step with prompt tokens, in microseconds."""
    prefill_per_token_ns: _Coefficient = 0
    """Additional duration per new token, in nanoseconds."""
    prefill_per_token_squared_ps: _Coefficient = 0
    """Additional duration per square of the number of new tokens, in picoseconds."""
    decode_base_us: _Microseconds = 0
    """Duration of every step with decoding sequences, in microseconds."""
    decode_per_sequence_ns: _Coefficient = 0
    """Additional duration per decoding sequence, in nanoseconds."""
    decode_per_kv_token_ps: _Coefficient = 0
    """Additional duration per context token to which the batch attends, in picoseconds."""


class Latency(Model):
    """The duration of scheduler steps."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            (
                "!(has(self.profile) && has(self.custom))",
                "latency.profile and latency.custom exclude each other",
            ),
            (
                "!has(self.timeScale) || !self.timeScale.matches('^[0.]+$')",
                "latency.timeScale must be greater than 0; use profile none for steps without duration",
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
    """A built-in latency model. With the default, `none`, steps take no time."""
    custom: CustomLatency | None = None
    """A custom latency model; excludes `profile`."""
    jitter_percent: Annotated[int, Field(ge=0, le=99)] = 0
    """Largest deviation of a step's duration in percent. The deviations follow from the seed."""
    time_scale: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,4}(\.[0-9]{1,6})?$", max_length=11)] = "1"
    """Factor of every duration, as a decimal number in quotes; with `"0.1"` the engine runs ten times faster."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.profile is not None and self.custom is not None:
            raise ValueError("profile and custom exclude each other")
        if float(self.time_scale) <= 0:
            raise ValueError(
                f"timeScale: {self.time_scale!r} must be greater than 0; use profile none for steps without duration"
            )
        return self


class EngineCurve(Model):
    """CURVE security of the event and replay sockets, which the mock offers in addition to what vLLM has."""

    secret_name: DnsName
    """Secret, in the same namespace, that holds the engines' CURVE secret key as `secret-key`."""
    public_key: CurveKey
    """The public key that belongs to it. The pods carry it as an annotation, by which an index knows it."""
    admission: Literal["All", "Known"] = "All"
    """`Known` admits only the clients whose public keys the Secret lists as `clients`, one per line."""


class Events(Model):
    """The KV event stream."""

    port: Port = 5557
    """Port of the event socket of rank 0. Rank n uses `port + n`."""
    replay_port: Port = 5558
    """Port of the replay socket of rank 0. Rank n uses `replayPort + n`; the two ranges must not overlap."""
    topic: Annotated[str, StringConstraints(pattern=r"^[^\s]*$", max_length=128)] = ""
    """Topic frame of every message."""
    wire_version: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$", max_length=11)] = (
        "0.33.0"
    )
    """The vLLM version whose encoding, fields and replay frames are used."""
    buffer_steps: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """Number of batches that are kept for replay."""
    data_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of data-parallel ranks per pod. Each rank has its own cache and event stream."""
    curve: EngineCurve | None = None
    """Encrypt the event and replay sockets."""


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
    """The desired state of the engine pods."""

    model_config = Model.model_config | {
        "json_schema_extra": rules(
            ("self.model.name == oldSelf.model.name", "spec.model.name cannot be changed: create a new MockEngine"),
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
    """The model that the engine serves."""
    cache: Cache = Field(default_factory=Cache, json_schema_extra=with_defaults())
    """The KV cache of each rank."""
    scheduler: Scheduler = Field(default_factory=Scheduler, json_schema_extra=with_defaults())
    """The scheduler."""
    latency: Latency = Field(default_factory=Latency, json_schema_extra=with_defaults())
    """The duration of scheduler steps."""
    events: Events = Field(default_factory=Events, json_schema_extra=with_defaults())
    """The KV event stream."""
    debug: Literal["Enabled", "Disabled"] = "Disabled"
    """Whether the pods serve their block table and fault plan under `/debug`, as audits and fault tests require."""
    faults: Annotated[list[FaultRule], Field(max_length=64)] = Field(default_factory=list)
    """Fault plan with which the pods start."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    """Seed of all random choices in the pods, such as the generated text."""
    termination_grace: Annotated[Duration, DurationBounds("0s", "1h")] = "30s"
    """How long a pod that is asked to stop may take to finish its requests."""
    template: PodTemplate = Field(default_factory=PodTemplate, json_schema_extra=with_defaults())
    """How and where the pods run."""

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
    """The observed state of the engine pods."""

    conditions: Annotated[list[Condition], Field(max_length=8, json_schema_extra={"x-list-map-keys": ["type"]})] = (
        Field(default_factory=list)
    )
    """`Ready`: every pod is ready and has the current spec. `Progressing`: a change is being rolled out.
    `Degraded`: a problem needs attention."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """Generation of the spec to which this status applies."""
    replicas: Annotated[int, Field(ge=0)] = 0
    """Number of pods."""
    updated_replicas: Annotated[int, Field(ge=0)] = 0
    """Number of pods with the current spec."""
    ready_replicas: Annotated[int, Field(ge=0)] = 0
    """Number of ready pods."""
    selector: Annotated[str, StringConstraints(max_length=512)] = ""
    """Label selector of the pods, for the scale subresource and autoscalers."""
