"""Routers for offline replay: the real policies, and for `kv` the real index core.

Only time and the wire are left out. Engines and index are in one process and name blocks by the same numbers, so the
index is told of runs of blocks (`kvsync_events.runs`) without an encoder, a decoder or a token between them. The policy
is the object that `kvsync-router` runs. A prompt counts as waiting for its prefill until its last
full block is announced; the live router counts it until the first byte of the answer.
"""

from collections.abc import Sequence

from kvsync_events import BlockRun, StoredRun
from kvsync_indexer.core import make_core
from kvsync_indexer.core.factory import CoreKind
from kvsync_mockpod.engine import Published, Request
from kvsync_mockpod.offline import WorkerLoad
from kvsync_router.decisions.policies import Candidate, KvAware, make_policy

MODEL = "offline"


def worker_name(number: int) -> str:
    """The name of a worker; up to 9,999 workers, names sort in the same order as numbers."""
    return f"worker-{number:04}"


class PolicyRouter:
    """Any policy that needs no index."""

    wants_events = False
    wants_runs = False

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

    def observe(self, worker: int, now: float, events: Sequence[Published]) -> None:
        """What engines publish is ignored."""


class KvRouter:
    """The `kv` policy on an index core that follows every worker."""

    wants_loads = True
    wants_events = False
    wants_runs = True

    def __init__(self, policy: KvAware, workers: int, block_size: int, core: CoreKind = "auto") -> None:
        self._policy = policy
        self.regret_tokens = 0
        """Prompt tokens that some worker held and the chosen one did not."""
        self._core = make_core(core)
        self._block_size = block_size
        self._names = [worker_name(number) for number in range(workers)]
        self._numbers = {name: number for number, name in enumerate(self._names)}
        self._unread: list[list[BlockRun]] = [[] for _ in range(workers)]
        """What each worker published since the last decision."""
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
        matches, length = self._matches(request), len(request.prompt_token_ids)
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
        chosen = self._policy.choose(length, candidates)
        number = self._numbers[chosen.name]
        self.regret_tokens += max(matches.values(), default=0) - chosen.matched_tokens
        self._send(number, request, length - chosen.matched_tokens)
        return number

    def _matches(self, request: Request) -> dict[str, int]:
        """The tokens of the prompt that each worker holds, if it holds any."""
        for name, unread in zip(self._names, self._unread, strict=True):
            if unread:
                self._core.apply_runs(name, self._block_size, unread)
                unread.clear()
        found = self._core.match_hashes(MODEL, self._block_size, list(request.block_hashes or ()))
        return {match.publisher: match.tokens for match in found}

    def _send(self, number: int, request: Request, uncached_tokens: int) -> None:
        self._assigned[number] += uncached_tokens
        if request.block_hashes:
            waiting = self._waiting_by_block[number]
            last = request.block_hashes[-1]
            waiting[last] = waiting.get(last, 0) + uncached_tokens
            self._waiting[number] += uncached_tokens

    def observe(self, worker: int, now: float, events: Sequence[Published]) -> None:
        """Keep the runs of one step for the next decision, and count the prompts whose last block they announce."""
        del now
        runs = [run for run in events if isinstance(run, BlockRun)]
        self._unread[worker] += runs
        if self._waiting_by_block[worker]:
            for run in runs:
                if isinstance(run, StoredRun):
                    self._announced(worker, run.hashes)

    def _announced(self, worker: int, hashes: Sequence[int | bytes]) -> None:
        if hashes:
            self._waiting[worker] -= self._waiting_by_block[worker].pop(hashes[-1], 0)
