"""Routers for offline replay: the real policies, and for `kv` the real index, fed with real event payloads.

Only time is simulated. The events of every step pass through the encoder of the wire and the decoder of the index
core, and the policy is the object that `kvsync-router` runs. A prompt counts as waiting for its prefill until its last
full block is announced; the live router counts it until the first byte of the answer.
"""

from collections.abc import Sequence

from kvsync_events import NEWEST_VERSION, BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import Context, make_core
from kvsync_indexer.core.factory import CoreKind
from kvsync_mockpod.engine import Event, Request
from kvsync_mockpod.offline import WorkerLoad
from kvsync_router.decisions.policies import (
    DEFAULT_DECODE_WEIGHT,
    DEFAULT_PREFILL_WEIGHT,
    Candidate,
    make_policy,
)
from kvsync_workload.prompts import pack_tokens

MODEL = "offline"


def worker_name(number: int) -> str:
    """The name of a worker; up to 9,999 workers, names sort in the same order as numbers."""
    return f"worker-{number:04}"


class PolicyRouter:
    """Any policy that needs no index."""

    wants_events = False

    def __init__(self, policy: str, seed: int, workers: int) -> None:
        self.wants_loads = policy == "least_request"
        self._policy = make_policy(policy, seed)
        self._names = [worker_name(number) for number in range(workers)]
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The worker that the policy chooses."""
        del now
        candidates = [Candidate(name, requests=load.in_flight) for name, load in zip(self._names, loads, strict=True)]
        return self._numbers[self._policy.choose(len(request.prompt_token_ids), candidates).name]

    def observe(self, worker: int, now: float, events: Sequence[Event]) -> None:
        """Events are ignored."""


class KvRouter:
    """The `kv` policy on an index core that follows every worker."""

    wants_loads = True
    wants_events = True

    def __init__(
        self,
        seed: int,
        workers: int,
        core: CoreKind = "auto",
        *,
        prefill_weight: float = DEFAULT_PREFILL_WEIGHT,
        decode_weight: float = DEFAULT_DECODE_WEIGHT,
    ) -> None:
        self._policy = make_policy("kv", seed, prefill_weight, decode_weight)
        self._core = make_core(core)
        self._form = WireForm.for_version(NEWEST_VERSION)
        self._context = Context(MODEL)
        self._names = [worker_name(number) for number in range(workers)]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._assigned = [0] * workers
        self._waiting = [0] * workers
        """Tokens that each worker has still to compute for prompts sent to it."""
        self._waiting_by_block: list[dict[int | bytes, int]] = [{} for _ in range(workers)]
        """The same per prompt, by the hash of its last full block."""
        for name in self._names:
            self._core.add_publisher(name, MODEL)

    @property
    def core_name(self) -> str:
        """The core in use: python or native."""
        return self._core.name

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The worker with the lowest cost for this prompt."""
        del now
        tokens = pack_tokens(request.prompt_token_ids)
        matches = {match.publisher: match.tokens for match in self._core.match(self._context, tokens)}
        candidates = [
            Candidate(
                name=name,
                matched_tokens=matches.get(name, 0),
                requests=load.in_flight,
                prefill_tokens=self._waiting[number],
                decode_tokens=load.tokens_in_flight,
                assigned_tokens=self._assigned[number],
            )
            for number, (name, load) in enumerate(zip(self._names, loads, strict=True))
        ]
        chosen = self._policy.choose(len(tokens), candidates)
        number = self._numbers[chosen.name]
        self._send(number, request, len(tokens) - chosen.matched_tokens)
        return number

    def _send(self, number: int, request: Request, uncached_tokens: int) -> None:
        self._assigned[number] += uncached_tokens
        if request.block_hashes:
            waiting = self._waiting_by_block[number]
            last = request.block_hashes[-1]
            waiting[last] = waiting.get(last, 0) + uncached_tokens
            self._waiting[number] += uncached_tokens

    def observe(self, worker: int, now: float, events: Sequence[Event]) -> None:
        """Pass the events of one step to the index as an encoded payload."""
        payload = encode_batch(EventBatch(now, list(events), 0), self._form)
        self._core.apply(self._names[worker], payload)
        waiting = self._waiting_by_block[worker]
        for event in events:
            if waiting and isinstance(event, BlockStored) and event.block_hashes:
                self._waiting[worker] -= waiting.pop(event.block_hashes[-1], 0)
