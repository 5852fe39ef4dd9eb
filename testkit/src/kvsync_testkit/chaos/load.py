"""Request load that never pauses: through the router, where every request needs one outcome, and to each engine itself.

The direct requests keep the block table of an engine moving while the router avoids it, so that there is something to
replay after the fault. The prompts share prefixes and exceed the cache, so that blocks are stored, hit and evicted.
"""

import itertools
import random
import threading
from collections.abc import Callable, Sequence

from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.history import History
from kvsync_testkit.checks.routing import Outcome, RequestSent

MODEL = "chaos-model"
BLOCK = 16
PATIENCE_S = 100.0
"""How long a client waits. A request in flight to an engine that is cut off goes on when TCP sends it again, which can
take as long after the healing as the partition lasted."""
_FAMILIES = 12
_TAILS = 2000


def make_prompt(chance: random.Random) -> list[int]:
    """Return a prompt of six blocks: one of twelve common beginnings, and one of 24,000 ends."""
    family = chance.randrange(_FAMILIES)
    tail = chance.randrange(_TAILS)
    return [*_tokens(f"family {family}", 4 * BLOCK), *_tokens(f"tail {family} {tail}", 2 * BLOCK), 300]


def _tokens(seed: str, count: int) -> list[int]:
    chance = random.Random(seed)
    return [chance.randrange(300, 100_000) for _ in range(count)]


class Load:
    """Threads that send requests until `stop`."""

    def __init__(self, backend: Backend, history: History, seed: str, every_s: float = 0.25) -> None:
        self.sent: list[RequestSent] = []
        self.outcomes: list[Outcome] = []
        self.direct_answers = 0
        self._backend, self._history, self._every_s = backend, history, every_s
        self._numbers = itertools.count()
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._seed = seed
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start three streams through the router, and two that visit the engines at random."""
        bodies: Sequence[Callable[[random.Random], None]] = (*[self._routed] * 3, *[self._direct] * 2)
        for number, body in enumerate(bodies):
            chance = random.Random(f"{self._seed} {number}")
            thread = threading.Thread(target=self._repeat, args=(body, chance), daemon=True, name=f"load-{number}")
            self._threads.append(thread)
            thread.start()

    def stop(self, deadline_s: float = PATIENCE_S + 10.0) -> None:
        """Send no more requests, and wait until those under way have ended."""
        self._ending.set()
        for thread in self._threads:
            thread.join(deadline_s)

    def _repeat(self, body: Callable[[random.Random], None], chance: random.Random) -> None:
        while not self._ending.wait(self._every_s * (0.5 + chance.random())):
            body(chance)

    def _routed(self, chance: random.Random) -> None:
        with self._lock:
            number = next(self._numbers)
        self.sent.append(RequestSent(self._history.add("invoke", request=number), number))
        body = {"model": MODEL, "prompt": make_prompt(chance), "max_tokens": 1, "ignore_eos": True}
        try:
            answer = self._backend.call("router", "POST", "/v1/completions", body, timeout_s=PATIENCE_S)
        except OSError as error:
            at = self._history.add("info", request=number, error=str(error)[:200])
            self.outcomes.append(Outcome(at, number, "failed"))
            return
        endpoint = str(answer.headers.get("x-kvsync-endpoint", "")).rsplit("/", 1)[-1]
        ok = answer.status < 500
        at = self._history.add("ok" if ok else "fail", request=number, status=answer.status, endpoint=endpoint)
        self.outcomes.append(Outcome(at, number, "answered" if ok else "refused", answer.status, endpoint))

    def _direct(self, chance: random.Random) -> None:
        engines = self._backend.engines()
        if engines:
            self.send_to(chance.choice(list(engines)), chance)

    def send_to(self, engine: str, chance: random.Random) -> bool:
        """Send one request to an engine and return whether it was answered with status 200."""
        body = {"model": MODEL, "prompt": make_prompt(chance), "max_tokens": 1, "ignore_eos": True}
        try:
            done = self._backend.call(engine, "POST", "/v1/completions", body, timeout_s=2.0).status == 200
        except OSError:
            done = False
        self.direct_answers += done
        return done
