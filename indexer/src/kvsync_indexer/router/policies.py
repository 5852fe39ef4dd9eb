"""Routing decisions: pure, seeded, no clock and no I/O.

A policy sees candidates (endpoints that are in the rotation, with the load the router itself has put on them and the
prefix tokens a trusted index says they hold) and returns one of them. Given the same calls it returns the same answers,
so an offline replay with one seed is reproducible.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

POLICY_NAMES = ("kv", "least_request", "round_robin", "random")
FALLBACK_POLICY = "least_request"

DEFAULT_PREFILL_WEIGHT = 0.3
DEFAULT_DECODE_WEIGHT = 0.05


@dataclass(frozen=True, slots=True)
class Candidate:
    """One endpoint at the moment of a decision; tokens are predictions made by the router."""

    name: str
    matched_tokens: int = 0
    """Longest contiguous prefix of this prompt that the endpoint is trusted to hold."""
    requests: int = 0
    """Requests in flight."""
    prefill_tokens: int = 0
    """Prompt tokens in flight that the endpoint has still to compute."""
    decode_tokens: int = 0
    """Context tokens of the requests in flight, with their predicted output."""
    assigned_tokens: int = 0
    """Tokens sent to be computed since the endpoint (re)joined: breaks ties so that caches fill evenly."""


class Policy(Protocol):
    """A rule that picks an endpoint."""

    name: str
    needs_match: bool

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:
        """The endpoint for a prompt of `prompt_tokens`; `candidates` is not empty."""
        ...


class RoundRobin:
    """The next name in sorted order after the last one chosen, whoever has left or joined since."""

    name = "round_robin"
    needs_match = False

    def __init__(self) -> None:
        self._last = ""

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """The next endpoint in turn."""
        ordered = sorted(candidates, key=lambda candidate: candidate.name)
        chosen = next((candidate for candidate in ordered if candidate.name > self._last), ordered[0])
        self._last = chosen.name
        return chosen


class Random:
    """Uniform choice from a seeded generator."""

    name = "random"
    needs_match = False

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """Any endpoint."""
        return self._rng.choice(sorted(candidates, key=lambda candidate: candidate.name))


class LeastRequest:
    """Fewest requests in flight; equals are broken by the seeded generator."""

    name = "least_request"
    needs_match = False

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """The least busy endpoint."""
        fewest = min(candidate.requests for candidate in candidates)
        tied = [candidate for candidate in candidates if candidate.requests == fewest]
        if len(tied) == 1:
            return tied[0]
        return self._rng.choice(sorted(tied, key=lambda candidate: candidate.name))


class KvAware:
    """The lowest predicted cost: tokens to compute here and now, plus what already waits and runs.

    cost = (prompt - matched) + prefill_weight * prefill_tokens + decode_weight * decode_tokens, in tokens. A matched
    prefix is worth exactly the tokens it saves, so a long prefix wins over a busy endpoint and a short one does not.
    """

    name = "kv"
    needs_match = True

    def __init__(
        self, prefill_weight: float = DEFAULT_PREFILL_WEIGHT, decode_weight: float = DEFAULT_DECODE_WEIGHT
    ) -> None:
        self._prefill_weight = prefill_weight
        self._decode_weight = decode_weight

    def cost(self, prompt_tokens: int, candidate: Candidate) -> float:
        """Predicted cost of sending the prompt to `candidate`, in tokens."""
        uncached = max(prompt_tokens - candidate.matched_tokens, 0)
        return (
            uncached + self._prefill_weight * candidate.prefill_tokens + self._decode_weight * candidate.decode_tokens
        )

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:
        """The cheapest endpoint; equals by requests in flight, then by what they have computed so far, then by name."""
        return min(
            candidates,
            key=lambda candidate: (
                self.cost(prompt_tokens, candidate),
                candidate.requests,
                candidate.assigned_tokens,
                candidate.name,
            ),
        )


def make_policy(
    name: str,
    seed: int,
    prefill_weight: float = DEFAULT_PREFILL_WEIGHT,
    decode_weight: float = DEFAULT_DECODE_WEIGHT,
) -> Policy:
    """The policy called `name`; ValueError names the allowed ones."""
    if name == "kv":
        return KvAware(prefill_weight, decode_weight)
    if name == "least_request":
        return LeastRequest(seed)
    if name == "round_robin":
        return RoundRobin()
    if name == "random":
        return Random(seed)
    msg = f"policy {name!r}: allowed are {', '.join(POLICY_NAMES)}"
    raise ValueError(msg)
