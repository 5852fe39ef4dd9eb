"""What `POST /v1/match` takes."""

from typing import Any

import msgspec

from kvsync_indexer.core import Context


class MatchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Exactly one of `token_ids`, `prompt` and `messages`."""

    model: str
    token_ids: list[int] | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    lora: str | int | None = None
    cache_salt: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    """A list a block: the keys the engine forms for it, e.g. `[["image-hash", 0]]`; null for none."""
    publishers: list[str] | None = None
    """Only these."""
    limit: int | None = None
    """At most so many rows, best first."""


def context_of(request: MatchRequest) -> Context:
    """In which context the prompt is looked for."""
    extra = request.extra_keys
    return Context(
        request.model,
        None if request.lora is None else str(request.lora),
        request.cache_salt,
        None if extra is None else tuple(None if keys is None else _frozen(keys) for keys in extra),
    )


def _frozen(keys: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(key) if isinstance(key, list) else key for key in keys)
