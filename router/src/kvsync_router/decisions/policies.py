"""Policies: how one endpoint is chosen among those in the rotation.

A policy gets candidates: endpoints with the load that the router has put on them and the prefix tokens that the index
says they hold. The same sequence of calls with the same seed gives the same choices, so that an offline replay is
reproducible.
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
    """One endpoint at the moment of a decision; loads are predicted by the router, in tokens."""

    name: str
    matched_tokens: int = 0
    """Longest contiguous prefix of this prompt that the endpoint is known to hold."""
    requests: int = 0
    """Requests in flight."""
    prefill_tokens: int = 0
    """Prompt tokens of requests in flight that the endpoint has not computed yet."""
    decode_tokens: int = 0
    """Context tokens of the requests in flight, including their predicted output."""
    assigned_tokens: int = 0
    """Tokens assigned to the endpoint since it joined the rotation; breaks ties, so that caches fill evenly."""
    saved_tokens: float | None = None
    """What the match is worth, if that is not its length: blocks of slow tiers count less, assumed ones count too."""


class Policy(Protocol):
    """A rule that picks an endpoint."""

    name: str
    needs_match: bool

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:
        """Choose the endpoint for a prompt of `prompt_tokens`; `candidates` is not empty."""
        ...

    def score(self, prompt_tokens: int, candidate: Candidate) -> float | None:
        """What the policy compares, where less is better; None if it compares nothing."""
        ...


class RoundRobin:
    """The next name in sorted order after the last one chosen, even if endpoints have left or joined since."""

    name = "round_robin"
    needs_match = False

    def __init__(self) -> None:
        self._last = ""

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """Choose the next endpoint."""
        ordered = sorted(candidates, key=lambda candidate: candidate.name)
        chosen = next((candidate for candidate in ordered if candidate.name > self._last), ordered[0])
        self._last = chosen.name
        return chosen

    def score(self, prompt_tokens: int, candidate: Candidate) -> float | None:  # noqa: ARG002
        """A turn is no score."""
        return None


class Random:
    """Uniform choice from a seeded generator."""

    name = "random"
    needs_match = False

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """Choose any endpoint."""
        return self._rng.choice(sorted(candidates, key=lambda candidate: candidate.name))

    def score(self, prompt_tokens: int, candidate: Candidate) -> float | None:  # noqa: ARG002
        """Chance is no score."""
        return None


class LeastRequest:
    """Fewest requests in flight; ties are broken by the seeded generator."""

    name = "least_request"
    needs_match = False

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:  # noqa: ARG002
        """Choose the least busy endpoint."""
        fewest = min(candidate.requests for candidate in candidates)
        tied = [candidate for candidate in candidates if candidate.requests == fewest]
        if len(tied) == 1:
            return tied[0]
        return self._rng.choice(sorted(tied, key=lambda candidate: candidate.name))

    def score(self, prompt_tokens: int, candidate: Candidate) -> float | None:  # noqa: ARG002
        """Requests in flight."""
        return candidate.requests


class KvAware:
    """The lowest predicted cost: the tokens to compute for this prompt, plus the load of the endpoint.

    cost = (prompt - saved) + prefill_weight * prefill_tokens + decode_weight * decode_tokens, in tokens. A matched
    prefix counts as the tokens that it saves: a long one outweighs the load of a busy endpoint, a short one does not.
    """

    name = "kv"
    needs_match = True

    def __init__(
        self, prefill_weight: float = DEFAULT_PREFILL_WEIGHT, decode_weight: float = DEFAULT_DECODE_WEIGHT
    ) -> None:
        self._prefill_weight = prefill_weight
        self._decode_weight = decode_weight

    def score(self, prompt_tokens: int, candidate: Candidate) -> float:
        """Predicted cost of sending the prompt to `candidate`, in tokens."""
        saved = candidate.saved_tokens
        uncached = prompt_tokens - (candidate.matched_tokens if saved is None else saved)
        return (
            max(uncached, 0)
            + self._prefill_weight * candidate.prefill_tokens
            + self._decode_weight * candidate.decode_tokens
        )

    def choose(self, prompt_tokens: int, candidates: Sequence[Candidate]) -> Candidate:
        """Choose the cheapest endpoint; ties go by requests in flight, then assigned tokens, then name."""
        return min(
            candidates,
            key=lambda candidate: (
                self.score(prompt_tokens, candidate),
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
    """Make the policy called `name`. Raises ValueError, which names the allowed policies."""
    if name == "kv":
        return KvAware(prefill_weight, decode_weight)
    if name == "least_request":
        return LeastRequest(seed)
    if name == "round_robin":
        return RoundRobin()
    if name == "random":
        return Random(seed)
    raise ValueError(f"policy {name!r}: allowed are {', '.join(POLICY_NAMES)}")
