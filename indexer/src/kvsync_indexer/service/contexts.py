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


def _frozen(value: Any, depth: int) -> Any:  # noqa: ANN401
    """The value with its lists as tuples. Raises RequestError if it is nested deeper than `depth` levels."""
    if not isinstance(value, list | dict):
        return value
    if not depth:
        raise RequestError(422, f"extra_keys are nested deeper than {MAX_DEPTH} levels", field="extra_keys")
    if isinstance(value, dict):
        return {name: _frozen(each, depth - 1) for name, each in value.items()}
    return tuple(_frozen(each, depth - 1) for each in value)
