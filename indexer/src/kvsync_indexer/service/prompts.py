"""The tokens of a match request: as they were sent, or from an engine, and truncated as the engine truncates them."""

from collections.abc import Sequence

from kvsync_indexer.api import MatchRequest
from kvsync_indexer.api.prompts import tokenize_body, truncated
from kvsync_indexer.errors import RequestError
from kvsync_indexer.ingest import PublisherLink
from kvsync_indexer.service.tokenizing import Tokenizer


async def query_tokens(
    request: MatchRequest, tokenizer: Tokenizer, links: Sequence[PublisherLink]
) -> Sequence[int] | None:
    """The tokens that the engine looks up; None if the engine alone knows where it truncates them.

    Raises RequestError, TokenizeError.
    """
    limit = request.truncate_prompt_tokens
    if limit is not None and limit < -1:
        raise RequestError(422, "truncate_prompt_tokens must be at least -1", field="truncate_prompt_tokens")
    if request.token_ids is not None:
        if limit is None:
            return request.token_ids
        return None if limit < 0 else truncated(request.token_ids, limit, request.truncation_side or "left", None)
    body = tokenize_body(request, request.prompt, request.messages)
    whole = await tokenizer.tokens(request.model, body, links)
    if limit is None:
        return whole.tokens
    if limit < 0:
        if whole.max_model_len is None:
            return None
        limit = whole.max_model_len - bool(request.max_tokens)
    bare = None
    adds = request.add_special_tokens
    if (
        request.truncation_side is None
        and len(whole.tokens) > limit
        and (adds or (adds is None and request.prompt is not None))
    ):
        bare = (await tokenizer.tokens(request.model, {**body, "add_special_tokens": False}, links)).tokens
    return truncated(whole.tokens, limit, request.truncation_side, bare)
