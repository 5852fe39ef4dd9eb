"""What the router reads of an OpenAI request, whichever front received it.

The body itself goes to the engine unchanged. `parse_request` is the one place that knows the form of a body, and
`match_request` the one place that turns it into the prompt that the engine will look up in its cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from kvsync_indexer.api import MatchRequest
from kvsync_router.errors import RequestRefusedError

DEFAULT_OUTPUT_TOKENS = 16
"""vLLM's default for `/v1/completions`; the same is assumed for a chat without a limit."""
CHARACTERS_PER_TOKEN = 4
"""Rough length of a token in text. It is used for load only, where the prompt is not tokenized."""


class _Body(msgspec.Struct):
    model: str | None = None
    prompt: str | list[int | str | list[int]] | None = None
    messages: msgspec.Raw = msgspec.Raw()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    cache_salt: str | None = None
    n: msgspec.Raw = msgspec.Raw()
    best_of: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request as the router sees it."""

    model: str | None
    token_ids: Sequence[int] | None
    prompt: str | None
    messages: bytes | None
    """The messages as JSON text."""
    output_tokens: int
    """Predicted length of the output: the limit that the request sets."""
    cache_salt: str | None
    single: bool = True
    """One prompt and one choice: the usage in the answer is about the prompt that was scored."""

    @property
    def estimated_tokens(self) -> int:
        """Length of the prompt: exact for token ids, estimated from the length of the text otherwise."""
        if self.token_ids is not None:
            return len(self.token_ids)
        text = self.prompt if self.prompt is not None else self.messages or b""
        return len(text) // CHARACTERS_PER_TOKEN + 1


_ABSENT = (b"", b"null")
_ONE = (*_ABSENT, b"1")
_DECODER = msgspec.json.Decoder(_Body)
_MESSAGES = msgspec.json.Decoder(list[dict[str, Any]])


def parse_request(body: bytes) -> InferenceRequest:
    """Read the body of a completion or a chat. Raises RequestRefusedError with status 400.

    Of several prompts in one request only the first is scored, because all of them go to one endpoint.
    """
    try:
        fields = _DECODER.decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestRefusedError(400, f"invalid request body: {error}", "invalid_request_error") from None
    prompt: object = fields.prompt
    single = bytes(fields.n) in _ONE and bytes(fields.best_of) in _ONE
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        single = single and len(prompt) == 1
        prompt = prompt[0]
    messages = bytes(fields.messages)  # a Raw never compares equal to bytes
    limit = fields.max_tokens if fields.max_tokens is not None else fields.max_completion_tokens
    return InferenceRequest(
        model=fields.model,
        token_ids=prompt if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt) else None,
        prompt=prompt if isinstance(prompt, str) else None,
        messages=None if messages in _ABSENT else messages,
        output_tokens=max(limit, 0) if limit is not None else DEFAULT_OUTPUT_TOKENS,
        cache_salt=fields.cache_salt,
        single=single,
    )


def match_request(request: InferenceRequest, model: str, lora: str | None) -> MatchRequest | None:
    """The question to the index: token ids if the request has them, else its text, else its messages.

    None if the request holds no prompt that an index could look up; the engine then answers what is wrong with it.
    """
    question = MatchRequest(model, lora=lora, cache_salt=request.cache_salt)
    if request.token_ids is not None:
        question.token_ids = list(request.token_ids)
    elif request.prompt is not None:
        question.prompt = request.prompt
    elif request.messages is not None:
        try:
            question.messages = _MESSAGES.decode(request.messages)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
    else:
        return None
    return question
