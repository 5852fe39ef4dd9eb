"""The values that enter and leave the engine, and the interfaces of its executor and latency model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockRun, BlockStored

FinishReason = Literal["stop", "length", "abort", "error"]
Event = BlockStored | BlockRemoved | AllBlocksCleared
"""Block hashes in these events are raw digests (bytes); the publisher converts them to the form used on the wire."""
Published = Event | BlockRun
"""What a step publishes: events, or runs where an index in the same process identifies blocks by their hashes."""


@dataclass(frozen=True, slots=True)
class LoraRef:
    """An adapter. Its name and path are part of the block identity; its id counts towards `max_loras`."""

    name: str
    id: int
    path: str


@dataclass(frozen=True, slots=True)
class MMFeature:
    """A multimodal input: its identity and the prompt positions `[offset, offset + length)` that it covers."""

    identifier: str
    offset: int
    length: int


@dataclass(slots=True, eq=False, weakref_slot=True)
class Request:
    """One generation request. The engine never changes it.

    `prompt_token_ids` may be any sequence with a length and slices; an offline trace creates tokens only when an event
    needs them. `block_hashes` are the hashes of the prompt's full blocks, if the caller already knows them.
    """

    request_id: str
    prompt_token_ids: Sequence[int]
    max_tokens: int
    arrival_s: float = 0.0
    priority: int = 0
    cache_salt: str | None = None
    lora: LoraRef | None = None
    mm_features: tuple[MMFeature, ...] = ()
    ignore_eos: bool = False
    stop_token_ids: Sequence[int] = ()
    skip_cache: bool = False
    """The log probabilities of the prompt are wanted, so all of it is computed."""
    report_full: bool = False
    """`kv_cache_report_mode: full`: a prefix hit is announced again, from the first block on."""
    eos_token_id: int | None = None
    """None means the EOS token of the engine's configuration."""
    session_id: str | None = None
    block_hashes: Sequence[bytes] | None = None


@dataclass(slots=True)
class RequestOutput:
    """The output of one step for one request."""

    request_id: str
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """Prompt tokens found in the cache when the request was first scheduled."""
    stop_token_id: int | None = None
    """The stop token that ended the request, if it was one of `stop_token_ids`."""
    error: str | None = None
    """The reason, if the request ended with `error`."""
    preemptions: int = 0


@dataclass(slots=True)
class StepResult:
    """The result of one `Engine.step`: what was scheduled and what became final."""

    step: int
    scheduled: list[tuple[str, int]] = field(default_factory=list)
    """Request id and token count in batch order: running requests first."""
    hits: dict[str, int] = field(default_factory=dict)
    """Hit tokens of requests that were scheduled for the first time."""
    resumed: dict[str, int] = field(default_factory=dict)
    """Hit tokens of requests that were scheduled again after a preemption."""
    preempted: list[str] = field(default_factory=list)
    finished: list[tuple[str, FinishReason]] = field(default_factory=list)
    outputs: list[RequestOutput] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    duration_s: float = 0.0
    """Time that the scheduled batch takes according to the latency model; 0.0 without one."""
    free: int = 0
    """Free blocks after the output of the step was taken."""
    wait_until: float | None = None
    """Set if nothing was scheduled because of a transfer of a lower tier: step again at this time, or when a request
    arrives.
    """


@dataclass(frozen=True, slots=True)
class ResidentBlock:
    """One block in the cache. `copies` is the number of physical blocks with this hash in this medium."""

    hash: bytes
    parent: bytes | None
    token_ids: tuple[int, ...]
    medium: str = "GPU"
    group_idx: int | None = 0
    copies: int = 1
    lora_name: str | None = None
    extra_keys: tuple[Any, ...] | None = None
    """Further content of the hash, as events carry it: salts, adapters and multimodal inputs."""
    lora_id: int | None = None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One block transition as it happened in the block table; published events are checked against these entries."""

    n: int
    step: int
    kind: Literal["stored", "removed", "cleared"]
    hash: bytes | None
    parent: bytes | None
    medium: str = "GPU"
    group_idx: int | None = 0


@dataclass(slots=True)
class StepLoad:
    """One step's batch as a latency model sees it. The object may be reused by the next step and must not be kept."""

    prefill_tokens: int
    """New tokens computed for prompts, including recomputed sequences."""
    decode_seqs: int
    """Number of sequences that receive one token each."""
    active_kv_tokens: int
    """Tokens in the cache that the batch attends to."""
    kv_capacity_tokens: int
    """Number of tokens that the cache can hold."""


class LatencyModel(Protocol):
    """Maps the load of a step to its duration."""

    def step_s(self, load: StepLoad) -> float:
        """Duration of the step in seconds."""
        ...


class Executor(ABC):
    """Takes the place of the model. A token depends only on (request, index), so recomputation needs no state."""

    ends_are_known: bool = False
    """Whether `stop_index` knows in advance where every request ends, so that decoding can be done in bulk."""
    outputs_are_distinct: bool = False
    """Whether no prompt ever continues with another request's output, so that decoded blocks are never hit by a waiting
    one.
    """

    @abstractmethod
    def sample(self, request: Request, index: int) -> int:
        """The output token at `index` (from 0) of a request."""

    def samples(self, request: Request, first: int, count: int) -> list[int]:
        """Output tokens `first` to `first + count - 1`."""
        return [self.sample(request, i) for i in range(first, first + count)]

    def admit(self, request: Request) -> None:  # noqa: ARG002
        """Called before a request's first block is allocated; a RequestFailedError ends the request with `error`."""
        return

    def begin_step(self, step: int, request_ids: Sequence[str]) -> None:  # noqa: ARG002
        """Called once per attempt at a step; a StepFailedError fails the whole step."""
        return

    def stop_index(self, request: Request) -> int:
        """Index of the token that ends the request; called only if `ends_are_known`."""
        raise NotImplementedError
