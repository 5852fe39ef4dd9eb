"""From a match request to the context in which the core looks for the prompt."""

from typing import Any, Final

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.core import Context
from kvsync_indexer.errors import RequestError

MAX_DEPTH: Final = 8
"""How deep the keys of one block may be nested. vLLM's are pairs in a list."""


def context_of(request: MatchRequest) -> Context:
    """Model, adapter, salt and extra keys: blocks match only within the same context. Raises RequestError."""
    extra = request.extra_keys
    return Context(
        request.model,
        None if request.lora is None else str(request.lora),
        request.cache_salt,
        None if extra is None else tuple(None if keys is None else _frozen(keys, MAX_DEPTH) for keys in extra),
    )


def _frozen(keys: list[Any], depth: int) -> tuple[Any, ...]:
    if not depth:
        raise RequestError(422, f"extra_keys are nested deeper than {MAX_DEPTH} levels", field="extra_keys")
    return tuple(_key(key, depth - 1) for key in keys)


def _key(key: object, depth: int) -> object:
    if isinstance(key, dict):
        raise RequestError(
            422, "extra_keys hold an object; the keys of a block are values and lists", field="extra_keys"
        )
    return _frozen(key, depth) if isinstance(key, list) else key
