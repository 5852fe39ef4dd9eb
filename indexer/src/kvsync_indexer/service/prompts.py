"""The tokens of a match request: as they were sent, or from a tokenizer, and truncated as the engine truncates them."""

from collections.abc import Sequence

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.api.prompts import tokenize_body, truncated
from kvsync_indexer.errors import RequestError, UnknownPromptError
from kvsync_indexer.ingest import PublisherLink
from kvsync_indexer.tokenizing import Tokenizers

_TRUNCATED = "only the engine knows where it truncates this prompt"


async def query_tokens(request: MatchRequest, tokenizers: Tokenizers, links: Sequence[PublisherLink]) -> Sequence[int]:
    """The tokens that the engine looks up. Raises RequestError, TokenizeError, UnknownPromptError."""
    limit = request.truncate_prompt_tokens
    if limit is not None and limit < -1:
        raise RequestError(422, "truncate_prompt_tokens must be at least -1", field="truncate_prompt_tokens")
    if request.token_ids is not None:
        if limit is None:
            return request.token_ids
        if limit < 0:
            raise UnknownPromptError(_TRUNCATED)
        return _known(truncated(request.token_ids, limit, request.truncation_side or "left", None))
    if request.messages is not None and any(link.spec.chat_format == "harmony" for link in links):
        raise UnknownPromptError("the engine renders chats of this model with the Harmony encoding")
    excludes_tools = any(link.spec.excludes_tools for link in links)
    body = tokenize_body(request, request.prompt, request.messages, excludes_tools=excludes_tools)
    whole = await tokenizers.tokens(request.model, body, links)
    if limit is None:
        return whole.tokens
    if limit < 0:
        if whole.max_model_len is None:
            raise UnknownPromptError(_TRUNCATED)
        limit = whole.max_model_len - bool(request.max_tokens)
    bare = None
    adds = request.add_special_tokens
    if (
        request.truncation_side is None
        and len(whole.tokens) > limit
        and (adds or (adds is None and request.prompt is not None))
    ):
        bare = (await tokenizers.tokens(request.model, {**body, "add_special_tokens": False}, links)).tokens
    return _known(truncated(whole.tokens, limit, request.truncation_side, bare))


def _known(tokens: list[int] | None) -> list[int]:
    if tokens is None:
        raise UnknownPromptError(_TRUNCATED)
    return tokens
