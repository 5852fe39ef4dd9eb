"""The question that decisions put to an index: who holds how much of a prompt?

The index tokenizes text itself, through an engine's `/tokenize`, so the router passes on the form that the client sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from kvsync_indexer.api import MatchAnswer, MatchRequest

TRUSTED_STATES: Final = frozenset({"live"})


@dataclass(frozen=True, slots=True)
class Score:
    """Matched prefix tokens per publisher, 0 included. Publishers that are not trusted are absent."""

    matched_tokens: Mapping[str, int] = field(default_factory=dict)
    unknown: str | None = None
    """Why the index cannot know the tokens of the prompt."""
    tiers: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Matched blocks per tier, of publishers that hold any."""
    block_size: int = 0
    """Tokens per block; 0 if the index does not know."""
    distrusted: Mapping[str, str] = field(default_factory=dict)
    """State of each publisher that is not trusted."""


class Scorer(Protocol):
    """Answers for an index."""

    async def score(self, request: MatchRequest) -> Score:
        """Who holds how much. Raises ScorerUnavailableError if there is no answer in time."""
        ...


def score_of(answer: MatchAnswer) -> Score:
    """What trusted publishers hold. The rule is the same over HTTP and in the index's process."""
    matched: dict[str, int] = {}
    tiers: dict[str, Mapping[str, int]] = {}
    distrusted: dict[str, str] = {}
    for row in answer.matches:
        if row.state in TRUSTED_STATES:
            matched[row.publisher] = row.matched_tokens
            if row.tiers:
                tiers[row.publisher] = row.tiers
        else:
            distrusted[row.publisher] = row.state
    return Score(matched, answer.unknown, tiers, answer.block_size, distrusted)
