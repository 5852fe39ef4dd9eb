"""What goes into the engine and what comes out of it: plain values, no behaviour beyond validation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored

FinishReason = Literal["stop", "length", "abort", "error"]
Event = BlockStored | BlockRemoved | AllBlocksCleared
"""Block hashes inside are raw digests (bytes); the publisher turns them into the wire's form."""


@dataclass(frozen=True, slots=True)
class LoraRef:
    """An adapter: its name and path are part of block identity, its id counts towards `max_loras`."""

    name: str
    id: int
    path: str


@dataclass(frozen=True, slots=True)
class MMFeature:
    """A multimodal input's identity and the prompt positions it covers: `[offset, offset + length)`."""

    identifier: str
    offset: int
    length: int


@dataclass(slots=True, eq=False, weakref_slot=True)
class Request:
    """One generation request. The engine never changes it.

    `prompt_token_ids` may be any sequence with a length and slices (an offline trace makes tokens only when an event
    needs them); `block_hashes` are the prompt's full-block hashes if the caller knows them already.
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
    report_full: bool = False
    """`kv_cache_report_mode: full`: a prefix hit is announced again, from the first block."""
    eos_token_id: int | None = None
    """None: the engine's."""
    session_id: str | None = None
    block_hashes: Sequence[bytes] | None = None


@dataclass(slots=True)
class RequestOutput:
    """What one step brought for one request."""

    request_id: str
    new_token_ids: list[int]
    finish_reason: FinishReason | None = None
    cached_tokens: int = 0
    """Prompt tokens found in the cache when the request was first scheduled."""
    stop_token_id: int | None = None
    """The stop token that ended it, if it was one of `stop_token_ids`."""
    error: str | None = None
    """Why it ended with `error`."""
    preemptions: int = 0


@dataclass(slots=True)
class StepResult:
    """One call of `Engine.step`: what was scheduled, and what became final."""

    step: int
    scheduled: list[tuple[str, int]] = field(default_factory=list)
    """(request, tokens), in batch order: running requests first."""
    hits: dict[str, int] = field(default_factory=dict)
    """Hit tokens of requests scheduled for the first time."""
    resumed: dict[str, int] = field(default_factory=dict)
    """Hit tokens of requests scheduled again after a preemption."""
    preempted: list[str] = field(default_factory=list)
    finished: list[tuple[str, FinishReason]] = field(default_factory=list)
    outputs: list[RequestOutput] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    duration_s: float = 0.0
    """Time the scheduled batch takes, by the latency model; 0.0 without one."""
    free: int = 0
    """Free blocks after the step's output."""
    wait_until: float | None = None
    """Nothing was scheduled and a transfer of a lower tier is under way: step again then, or when a request arrives."""


@dataclass(frozen=True, slots=True)
class ResidentBlock:
    """One block in the cache. `copies` counts the physical blocks with this hash in this medium."""

    hash: bytes
    parent: bytes | None
    token_ids: tuple[int, ...]
    medium: str = "GPU"
    group_idx: int | None = 0
    copies: int = 1


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One block transition, as it happened in the block table: the ground truth that events are checked against."""

    n: int
    step: int
    kind: Literal["stored", "removed", "cleared"]
    hash: bytes | None
    parent: bytes | None
    medium: str = "GPU"
    group_idx: int | None = 0


@dataclass(slots=True)
class StepLoad:
    """What a latency model may look at: one step's batch. Not to be kept: the next step may reuse it."""

    prefill_tokens: int
    """New tokens computed for prompts (and recomputed sequences)."""
    decode_seqs: int
    """Sequences that get one token each."""
    active_kv_tokens: int
    """Tokens in the cache that the batch attends to."""
    kv_capacity_tokens: int
    """Tokens the cache can hold."""


class LatencyModel(Protocol):
    """Turns a step's load into its duration."""

    def step_s(self, load: StepLoad) -> float:
        """Seconds that the step takes."""
        ...


class Executor(ABC):
    """Stands where the model stands. Tokens are a function of (request, index), so recomputation needs no state."""

    ends_are_known: bool = False
    """`stop_index` knows in advance where every request ends: decoding can then run ahead."""
    outputs_are_distinct: bool = False
    """No prompt ever continues with another request's output, so outputs cannot help anybody who waits."""

    @abstractmethod
    def sample(self, request: Request, index: int) -> int:
        """The `index`-th output token (from 0) of a request."""

    def samples(self, request: Request, first: int, count: int) -> list[int]:
        """Output tokens `first` to `first + count - 1`."""
        return [self.sample(request, i) for i in range(first, first + count)]

    def admit(self, request: Request) -> None:  # noqa: ARG002
        """Called before a request's first block is allocated; RequestFailedError ends it with `error`."""
        return

    def begin_step(self, step: int, request_ids: Sequence[str]) -> None:  # noqa: ARG002
        """Called once a step (again on a retry); StepFailedError fails the whole step."""
        return

    def stop_index(self, request: Request) -> int:
        """Index of the token that ends the request; asked only if `ends_are_known`."""
        raise NotImplementedError
