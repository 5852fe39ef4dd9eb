"""Requests through the Service of a router, and the routing decisions that the answers report."""

import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kvsync_testkit.cluster import wait_until
from kvsync_testkit.kube import Answer, Kube


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request. Every request has exactly one (invariant I13)."""

    status: int
    endpoint: str
    policy: str
    matched_tokens: int
    prompt_tokens: int
    cached_tokens: int
    at_s: float


@dataclass
class Tally:
    """The outcomes of a run."""

    outcomes: list[Outcome] = field(default_factory=list)

    def failures(self) -> list[Outcome]:
        return [item for item in self.outcomes if item.status != 200]

    def by_endpoint(self) -> Counter[str]:
        return Counter(item.endpoint for item in self.outcomes)

    def policies(self) -> Counter[str]:
        return Counter(item.policy for item in self.outcomes)

    def cached_share(self) -> float:
        """Return the share of prompt tokens that the engines report as cached."""
        total = sum(item.prompt_tokens for item in self.outcomes)
        return sum(item.cached_tokens for item in self.outcomes) / total if total else 0.0


@dataclass(frozen=True)
class Router:
    """A router behind a Service."""

    kube: Kube
    namespace: str
    service: str
    port: str = "router"

    def path(self, path: str) -> str:
        return self.kube.service_path(self.namespace, self.service, self.port, path)

    def complete(self, model: str, tokens: list[int], **fields: Any) -> Outcome:
        """Send a completion request. A broken connection is an outcome with status 0."""
        body = {"model": model, "prompt": tokens, "max_tokens": 1, "ignore_eos": True, **fields}
        try:
            answer = self.kube.send("POST", self.path("/v1/completions"), body, timeout_s=60.0)
        except OSError:
            return Outcome(0, "", "", 0, len(tokens), 0, time.monotonic())
        return _outcome(answer, len(tokens))

    def wait_knows(self, count: int, *, deadline_s: float = 30.0) -> None:
        """Wait until the router knows `count` endpoints."""

        def probe() -> bool:
            found = self.kube.call("GET", self.path("/v1/endpoints"))["endpoints"]
            assert len(found) == count, f"the router knows {found}"
            return True

        wait_until(f"the router {self.service} knows {count} endpoints", probe, deadline_s=deadline_s)

    def run(self, model: str, prompts: Iterable[list[int]], *, workers: int = 4, **fields: Any) -> Tally:
        """Send all prompts, `workers` at a time, and return the outcomes in the order of the prompts."""
        with ThreadPoolExecutor(workers) as pool:
            return Tally(list(pool.map(lambda tokens: self.complete(model, tokens, **fields), prompts)))


def _outcome(answer: Answer, prompt_tokens: int) -> Outcome:
    cached = 0
    if answer.status == 200:
        usage = answer.json().get("usage", {})
        prompt_tokens = usage.get("prompt_tokens", prompt_tokens)
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) or 0
    headers = answer.headers
    return Outcome(
        answer.status,
        headers.get("x-kvsync-endpoint", ""),
        headers.get("x-kvsync-policy", ""),
        int(headers.get("x-kvsync-matched-tokens", "0") or 0),
        prompt_tokens,
        cached,
        time.monotonic(),
    )


class BackgroundTraffic:
    """Steady traffic during a change of the cluster, as a context manager."""

    def __init__(self, router: Router, model: str, prompts: list[list[int]], *, workers: int = 2) -> None:
        self._router, self._model, self._prompts = router, model, prompts
        self._pool = ThreadPoolExecutor(workers)
        self._workers = workers
        self._stopping = False
        self._jobs: list[Any] = []
        self.tally = Tally()

    def __enter__(self) -> "BackgroundTraffic":
        self._jobs = [self._pool.submit(self._work, number) for number in range(self._workers)]
        return self

    def _work(self, number: int) -> None:
        step = 0
        while not self._stopping:
            tokens = self._prompts[(number + step * self._workers) % len(self._prompts)]
            self.tally.outcomes.append(self._router.complete(self._model, tokens))
            step += 1

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._pool.shutdown(wait=True)
        for job in self._jobs:
            job.result()
