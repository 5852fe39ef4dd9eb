"""`GET /v1/decisions`: what a router decided lately, and why. The index serves it for a router in its process."""

import msgspec


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint that could have been chosen."""

    publisher: str
    score: float | None = None
    """What the policy compared; smaller is better. Null if the policy does not score."""
    matched_tokens: int = 0
    queued: int = 0
    """Requests in flight at this endpoint."""
    reason: str = ""
    """Why it was or was not chosen, in a few words."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """One request that was placed."""

    at: float
    """Unix time in seconds."""
    model: str
    policy: str
    chosen: str
    """Publisher of the chosen endpoint; empty if there was none."""
    predicted_tokens: int | None = None
    """Prompt tokens that the index named for the chosen endpoint."""
    available_tokens: int | None = None
    """The most prompt tokens that the index named for any endpoint."""
    reported_tokens: int | None = None
    """Prompt tokens that the engine found in its cache; null if it has not said so."""
    candidates: list[Candidate] = []


class DecisionsAnswer(msgspec.Struct):
    """The newest decisions, newest first."""

    decisions: list[Decision]
