"""The conditions under which the engine accepts a request, and the sequence made from an accepted one."""

from collections.abc import Container

from kvsync_mockpod.engine.api import Request
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.errors import (
    DrainingError,
    DuplicateRequestError,
    InvalidRequestError,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    UnknownLoraError,
)
from kvsync_mockpod.engine.sequence import Sequence


def check_request(request: Request, config: EngineConfig, *, live: Container[str], queued: int, draining: bool) -> None:
    """Check a request against the configuration and the state of the engine.

    Raises:
        RequestRefusedError: the subclass says why the request is not accepted.
    """
    prompt = len(request.prompt_token_ids)
    if draining:
        raise DrainingError("the engine is shutting down")
    if request.request_id in live:
        raise DuplicateRequestError(f"request id {request.request_id!r} is in use")
    if prompt == 0:
        raise PromptEmptyError("the prompt has no tokens")
    if prompt >= config.max_model_len:
        raise PromptTooLongError(
            f"the prompt has {prompt} tokens, but at most {config.max_model_len - 1} are allowed "
            f"(max_model_len {config.max_model_len}, one token is left for the output)"
        )
    if request.max_tokens < 1:
        raise InvalidRequestError(f"max_tokens must be at least 1, got {request.max_tokens}")
    if request.lora is not None and not config.max_loras:
        raise UnknownLoraError(f"LoRA {request.lora.name!r}: this engine has no LoRA slots")
    if config.max_waiting is not None and queued >= config.max_waiting:
        raise QueueFullError(f"the waiting queue is full ({config.max_waiting} requests)")


def make_sequence(request: Request, config: EngineConfig, ticket: int) -> Sequence:
    """Resolve a request's stop tokens and output limit."""
    eos = config.eos_token_id if request.eos_token_id is None else request.eos_token_id
    stops = set(request.stop_token_ids)
    if not request.ignore_eos:
        stops.add(eos)
    limit = min(request.max_tokens, config.max_model_len - len(request.prompt_token_ids))
    return Sequence(request, limit=limit, stops=frozenset(stops), ticket=ticket)
