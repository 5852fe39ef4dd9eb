"""`POST /v1/match`: which publishers hold how much of a prompt, or of several prompts."""

from typing import Annotated, Any

import msgspec

from kvsync_indexer.api.errors import ErrorDetail
from kvsync_indexer.api.prompts import PromptFields


class MatchRequest(PromptFields, forbid_unknown_fields=True, omit_defaults=True):
    """The prompt, in exactly one of the forms `token_ids`, `prompt` and `messages`, and its context.

    The fields of `PromptFields` mean what they mean in a request to an engine.
    """

    model: str
    """Name of the base model, as publishers announce it."""
    token_ids: list[int] | None = None
    """Token ids of 32 bits."""
    prompt: str | None = None
    """Text, which an engine of the model tokenizes."""
    messages: list[dict[str, Any]] | None = None
    """Chat messages, which an engine of the model renders with its chat template and tokenizes."""
    lora: str | int | None = None
    """Name or number of the adapter."""
    cache_salt: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    """One entry per block: the keys that the engine adds to that block, such as `[["image-hash", 0]]`, or null."""
    publishers: list[str] | None = None
    """Names of the publishers to consider; null considers all of the model's."""
    limit: int | None = None
    """Largest number of rows in the answer, which is ordered best first."""


class MatchRow(msgspec.Struct):
    """What one publisher holds of the prompt."""

    publisher: str
    pod: str
    rank: int
    matched_blocks: int
    """Length of the longest contiguous prefix that is resident, in blocks. 0 for a publisher that is not trusted."""
    matched_tokens: int
    tiers: dict[str, int]
    """Matched blocks per tier, such as `{"GPU": 12, "CPU": 4}`."""
    state: str
    """State of the publisher, or `not_ready` if its pod takes no traffic."""
    age_s: float | None
    """Seconds since the last sign of life of the publisher; null if there was none yet."""
    incomplete: bool
    """The publisher may hold more than the index knows."""
    epoch: str = ""
    """Identity of the engine process behind the publisher, as in `/v1/publishers`."""


class MatchAnswer(msgspec.Struct, omit_defaults=True):
    """Rows ordered best first; every publisher of the model has one, unless the prompt cannot be known."""

    block_size: int
    """Tokens per block of the best match, else of the model's publishers, else 0."""
    query_blocks: int
    """Full blocks in the prompt."""
    matches: list[MatchRow]
    unknown: str | None = None
    """Why the tokens of this prompt cannot be known, for example because it has pictures. There are no rows then."""
    skips_cache: bool = False
    """The engine does not look such a prompt up, so every row has 0 matched tokens."""


MOST_QUERIES = 256
"""Queries in one batch."""


class BatchMatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Several independent prompts."""

    queries: Annotated[list[MatchRequest], msgspec.Meta(min_length=1, max_length=MOST_QUERIES)]


class BatchMatchResult(MatchAnswer, kw_only=True, omit_defaults=True):
    """The answer to one query of a batch. A query that cannot be answered has an error and no rows."""

    status: int = 200
    """The status that the query would have on its own."""
    error: ErrorDetail | None = None


class BatchMatchAnswer(msgspec.Struct):
    """One result per query, in their order."""

    results: list[BatchMatchResult]
