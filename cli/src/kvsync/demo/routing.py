"""Why each request went where it went, from what the router and the engine said about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvsync.load.client import Outcome

HELD = "held the whole known prefix"
PART = "held a part of it"
NONE = "held none of it (evicted, or its engine too busy)"
NEW = "new prompt, placed by load"
IN_TURN = "in turn, without asking the index"
AWAY = "index away, placed by load"
REASONS = (HELD, PART, NONE, NEW, IN_TURN, AWAY)
ASKING = "kv"
"""The policy that asks the index."""
EXAMPLES = 8


@dataclass(frozen=True, slots=True)
class Explainer:
    """Explains the placements of one leg.

    `known_tokens` is, per request, how much of the prompt an unlimited cache would have held. `common_tokens` is the
    beginning that all prompts of the workload share, such as a system prompt. Every engine holds that beginning, so it
    decides nothing.
    """

    policy: str
    known_tokens: Sequence[int]

    @property
    def common_tokens(self) -> int:
        """The tokens that every prompt but the first shares with an earlier one."""
        return min(self.known_tokens[1:], default=0)

    def explain(self, outcome: Outcome) -> str:
        """Return the reason for the placement of one answered request."""
        known = self.known_tokens[outcome.number]
        if self.policy != ASKING:
            return IN_TURN
        if outcome.policy != self.policy:
            return AWAY
        if known <= self.common_tokens:
            return NEW
        held = outcome.matched_tokens or 0
        if held >= known:
            return HELD
        return PART if held > self.common_tokens else NONE

    def count(self, outcomes: Sequence[Outcome]) -> dict[str, dict[str, int]]:
        """Return the number of requests per engine and reason; reasons that did not occur are left out."""
        counts: dict[str, dict[str, int]] = {}
        for outcome in outcomes:
            if outcome.ok:
                of_engine = counts.setdefault(outcome.endpoint, {})
                reason = self.explain(outcome)
                of_engine[reason] = of_engine.get(reason, 0) + 1
        return dict(sorted(counts.items()))

    def choose_examples(self, outcomes: Sequence[Outcome], around_s: float) -> list[dict[str, Any]]:
        """Return the placements of requests with a known prefix that were sent around one moment."""
        known = [one for one in outcomes if one.ok and self.explain(one) != NEW]
        known.sort(key=lambda outcome: outcome.sent_s)
        before = sum(outcome.sent_s < around_s for outcome in known)
        first = max(min(before - EXAMPLES // 2, len(known) - EXAMPLES), 0)
        return [self._describe(outcome) for outcome in known[first : first + EXAMPLES]]

    def _describe(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "sent_s": round(outcome.sent_s, 3),
            "request": outcome.number,
            "endpoint": outcome.endpoint,
            "prompt_tokens": outcome.prompt_tokens,
            "known_tokens": self.known_tokens[outcome.number],
            "matched_tokens": outcome.matched_tokens,
            "cached_tokens": outcome.cached_tokens,
            "reason": self.explain(outcome),
        }
