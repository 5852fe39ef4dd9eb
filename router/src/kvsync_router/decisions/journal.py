"""What the router decided lately, and why: for `GET /v1/decisions`, `x-kvsync-explain` and the access log.

A record holds no text of a prompt, no token, no cache salt and no session. Their number and size are bounded: the
journal keeps the newest records, and a record the best candidates. Reasons are put into words only when they are read.
"""

import heapq
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from kvsync_router.decisions.policies import Candidate, Policy

MOST_RECORDS: Final = 256
MOST_CANDIDATES: Final = 16
MOST_MODEL_CHARACTERS: Final = 128
MOST_EXPLAIN_BYTES: Final = 2048
"""Longest value of the header, so that no proxy between router and client refuses the answer."""


@dataclass(slots=True)
class DecisionRecord:
    """One request that was placed."""

    at: float
    """Wall-clock time in seconds since 1970."""
    model: str
    policy: Policy
    prompt_tokens: int
    eligible: tuple[str, ...] = ()
    """Every endpoint that could take the request when it was placed first."""
    candidates: Sequence[Candidate] = ()
    """The best of them, as the policy saw them."""
    passed: Mapping[str, str] = field(default_factory=dict)
    """Why other endpoints could not take the request, by name."""
    distrusted: Mapping[str, str] = field(default_factory=dict)
    """State of each candidate whose blocks do not count."""
    failed: dict[str, str] = field(default_factory=dict)
    """Why an attempt at a candidate failed."""
    chosen: str = ""
    tied_by: str = ""
    """Why the request had to go to `chosen`, whatever the policy says; empty if the policy chose."""
    predicted_tokens: int | None = None
    available_tokens: int | None = None
    reported_tokens: int | None = None

    def consider(self, candidates: Sequence[Candidate], chosen: Candidate) -> None:
        """Keep the candidates of the first choice, the chosen one among them."""
        self.eligible = tuple(candidate.name for candidate in candidates)
        if len(candidates) > MOST_CANDIDATES:
            others = [candidate for candidate in candidates if candidate is not chosen]
            candidates = [chosen, *heapq.nsmallest(MOST_CANDIDATES - 1, others, key=self._rank)]
        self.candidates = candidates

    def _rank(self, candidate: Candidate) -> tuple[float, str]:
        return self.policy.score(self.prompt_tokens, candidate) or 0.0, candidate.name

    def view(self) -> dict[str, Any]:
        """The record as `GET /v1/decisions` shows it."""
        ordered = sorted(self.candidates, key=lambda candidate: (candidate.name != self.chosen, *self._rank(candidate)))
        rows = [
            {
                "publisher": candidate.name,
                "score": self.policy.score(self.prompt_tokens, candidate),
                "matched_tokens": candidate.matched_tokens,
                "queued": candidate.requests,
                "reason": self._reason(candidate),
            }
            for candidate in ordered
        ]
        rows += [
            {"publisher": name, "score": None, "matched_tokens": 0, "queued": 0, "reason": reason}
            for name, reason in islice(self.passed.items(), MOST_CANDIDATES - min(len(rows), MOST_CANDIDATES))
        ]
        return {
            "at": self.at,
            "model": self.model,
            "policy": self.policy.name,
            "chosen": self.chosen,
            "predicted_tokens": self.predicted_tokens,
            "available_tokens": self.available_tokens,
            "reported_tokens": self.reported_tokens,
            "candidates": rows,
        }

    def explanation(self) -> bytes:
        """The record as the value of a header: compact JSON in ASCII, with as many candidates as there is room for."""
        view = self.view()
        while len(text := json.dumps(view, separators=(",", ":"))) > MOST_EXPLAIN_BYTES and view["candidates"]:
            view["candidates"].pop()
        return text.encode("ascii")

    def _reason(self, candidate: Candidate) -> str:
        reason = self.failed.get(candidate.name) or self._comparison(candidate)
        state = self.distrusted.get(candidate.name)
        return f"{reason}; its blocks do not count, because its publisher is {state}" if state else reason

    def _comparison(self, candidate: Candidate) -> str:
        if candidate.name == self.chosen:
            return f"chosen, because {self.tied_by}" if self.tied_by else "chosen"
        if self.tied_by:
            return "the policy was not asked"
        chosen = next((one for one in self.candidates if one.name == self.chosen), None)
        own = self.policy.score(self.prompt_tokens, candidate)
        best = None if chosen is None else self.policy.score(self.prompt_tokens, chosen)
        if own is None or best is None:
            return "not its turn" if self.policy.name == "round_robin" else "not chosen"
        if own > best:
            return f"scores {own - best:g} worse"
        return "scores as well, and lost the tie" if own == best else "scored better before an attempt failed"


class Journal:
    """The newest records, in a ring."""

    def __init__(self, wall_clock: Callable[[], float], most: int = MOST_RECORDS) -> None:
        self._wall_clock = wall_clock
        self._records: deque[DecisionRecord] = deque(maxlen=most)

    def open(
        self, model: str | None, policy: Policy, prompt_tokens: int, distrusted: Mapping[str, str]
    ) -> DecisionRecord:
        """A record for a request that is about to be placed. It is kept once it is `add`ed."""
        name = (model or "")[:MOST_MODEL_CHARACTERS]
        return DecisionRecord(self._wall_clock(), name, policy, prompt_tokens, distrusted=distrusted)

    def add(self, record: DecisionRecord) -> None:
        """Keep the record, in place of the oldest one."""
        self._records.append(record)

    def newest(self, limit: int = MOST_RECORDS) -> list[dict[str, Any]]:
        """The newest records, newest first."""
        return [record.view() for record in islice(reversed(self._records), max(limit, 0))]
