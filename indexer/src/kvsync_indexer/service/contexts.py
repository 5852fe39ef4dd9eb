"""From a match request to the context in which the core looks for the prompt."""

from typing import Any

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.core import Context


def context_of(request: MatchRequest) -> Context:
    """Model, adapter, salt and extra keys: blocks match only within the same context."""
    extra = request.extra_keys
    return Context(
        request.model,
        None if request.lora is None else str(request.lora),
        request.cache_salt,
        None if extra is None else tuple(None if keys is None else _frozen(keys) for keys in extra),
    )


def _frozen(keys: list[Any]) -> tuple[Any, ...]:
    return tuple(_frozen(key) if isinstance(key, list) else key for key in keys)
