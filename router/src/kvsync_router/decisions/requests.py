"""What the router reads of an OpenAI request, whichever front received it.

The body itself goes to the engine unchanged. `parse_request` reads it once, and `match_request` turns it into the
question to the index; which prompt an engine makes of a body is known by `kvsync_indexer.api.prompts`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from kvsync_indexer.api import FirstPrompt, MatchRequest, PromptFields
from kvsync_indexer.api.prompts import first_prompt, skips_cache, unknown_body
from kvsync_router.decisions.dialects import ReadBody, read_chat_or_completion, read_messages, read_responses
from kvsync_router.decisions.paths import Api
from kvsync_router.errors import RequestRefusedError

DEFAULT_OUTPUT_TOKENS: Final = 16
"""vLLM's default for `/v1/completions`; the same is assumed for a chat without a limit."""
MAX_OUTPUT_TOKENS: Final = 4096
"""Longest output that is predicted. Clients name limits far beyond what they get, up to 2^31 - 1 and more, and a
prediction must not make an engine look busier than an answer of usual length does."""
CHARACTERS_PER_TOKEN: Final = 4
"""Rough length of a token in text. It is used for load only, where the prompt is not tokenized."""


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One request as the router sees it."""

    model: str | None
    prompt: FirstPrompt
    estimated_tokens: int
    """Length of the prompt: exact for token ids, estimated from the length of the text otherwise."""
    output_tokens: int = DEFAULT_OUTPUT_TOKENS
    """Predicted length of the output: the limit that the request sets, clipped."""
    output_limit: int | None = None
    """The limit that the request sets."""
    cache_salt: str | None = None
    stream: bool = False
    skips_cache: bool = False
    """The engine does not look this prompt up in its cache."""
    unknown: str | None = None
    """Why the tokens of the prompt cannot be known; None if they can."""
    fields: PromptFields = field(default_factory=PromptFields)
    user: object = None
    """The `user` field, which may name a session."""
    previous_response: str | None = None
    """The stored response that this request continues, reads or cancels."""

    @property
    def single(self) -> bool:
        """One prompt and one choice: the usage in the answer is about the prompt that was scored."""
        return self.prompt.alone


_READERS: Final[dict[Api | None, Callable[[bytes], ReadBody]]] = {
    "responses": read_responses,
    "messages": read_messages,
}
_MODEL_PART: Final = re.compile(rb'name="model"(?:\r\n[^\r\n]+)*\r\n\r\n([^\r\n]{1,512})\r\n')
"""The model in a form with files, such as a request for a transcription."""


def parse_request(body: bytes, *, api: Api | None = None) -> InferenceRequest:
    """Read the body of a request. Raises RequestRefusedError with status 400.

    A completion ignores messages, and a chat everything but messages, as engines do. Without `api`, it may be either.

    Of several prompts in one request only the first is scored, because all of them go to one endpoint.
    """
    try:
        fields, unknown, previous_response = _READERS.get(api, read_chat_or_completion)(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RequestRefusedError(400, f"invalid request body: {error}", "invalid_request_error") from None
    except RecursionError:
        raise RequestRefusedError(400, "the request body is nested too deeply", "invalid_request_error") from None
    if api == "completion":
        fields.messages = None
    elif api is not None:
        fields.prompt = fields.prompt_embeds = None
    prompt = first_prompt(fields)
    limit = fields.max_completion_tokens if fields.max_completion_tokens is not None else fields.max_tokens
    return InferenceRequest(
        model=fields.model,
        prompt=prompt,
        estimated_tokens=_estimated_tokens(prompt, body),
        output_tokens=DEFAULT_OUTPUT_TOKENS if limit is None else min(max(limit, 0), MAX_OUTPUT_TOKENS),
        output_limit=limit,
        cache_salt=fields.cache_salt,
        stream=bool(fields.stream),
        skips_cache=skips_cache(fields, chat=prompt.messages is not None),
        unknown=unknown or unknown_body(fields),
        fields=fields,
        user=fields.user,
        previous_response=previous_response,
    )


def opaque_request(body: bytes, content_type: str, *, response: str | None = None) -> InferenceRequest:
    """A request without a prompt that the router could read: only its model and its size count.

    `response` is the stored response that its path names.
    """
    return InferenceRequest(
        model=_model_of(body, content_type),
        prompt=FirstPrompt(),
        estimated_tokens=len(body) // CHARACTERS_PER_TOKEN + 1,
        output_tokens=0,
        unknown="a request of this kind has no prompt that is looked up",
        previous_response=response,
    )


class _Model(msgspec.Struct):
    model: str | None = None


_MODEL: Final = msgspec.json.Decoder(_Model)


def _model_of(body: bytes, content_type: str) -> str | None:
    if content_type.startswith("multipart/"):
        part = _MODEL_PART.search(body)
        return None if part is None else part[1].decode("utf-8", "replace")
    try:
        return _MODEL.decode(body).model
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the engine says what is wrong with it


def _estimated_tokens(prompt: FirstPrompt, body: bytes) -> int:
    if prompt.token_ids is not None:
        return len(prompt.token_ids)
    size = len(prompt.text) if prompt.text is not None else len(body) if prompt.messages is not None else 0
    return size // CHARACTERS_PER_TOKEN + 1


def match_request(request: InferenceRequest, model: str, lora: str | None) -> MatchRequest | None:
    """The question to the index: token ids if the request has them, else its text, else its messages.

    None if the index has nothing to look up: there is no prompt, its tokens cannot be known, or the engine skips its
    cache.
    """
    prompt = request.prompt
    if request.unknown is not None or request.skips_cache:
        return None
    if prompt.token_ids is None and prompt.text is None and prompt.messages is None:
        return None
    given: dict[str, Any] = {name: getattr(request.fields, name) for name in PromptFields.__struct_fields__}
    if prompt.messages is None:
        given = {name: given[name] for name in _COMPLETION_FIELDS}
    if prompt.token_ids is not None:
        del given["add_special_tokens"]
    for name in _ANSWER_FIELDS:
        given.pop(name, None)
    if given["truncate_prompt_tokens"] is None:
        given.pop("max_tokens")
    return MatchRequest(
        model,
        lora=lora,
        cache_salt=request.cache_salt,
        token_ids=prompt.token_ids,
        prompt=prompt.text,
        messages=prompt.messages,
        **given,
    )


_COMPLETION_FIELDS: Final = ("add_special_tokens", "truncate_prompt_tokens", "truncation_side", "max_tokens")
"""The fields that count for a prompt of text."""
_ANSWER_FIELDS: Final = ("prompt_logprobs", "echo", "logprobs", "top_logprobs", "tool_choice")
"""Fields that have been taken into account already, or that leave the prompt as it is."""


def output_wait_tokens(request: InferenceRequest) -> int:
    """Output tokens that an engine computes before the first byte of its answer; 0 for a stream."""
    if request.stream:
        return 0
    if request.output_limit is None and request.prompt.messages is not None:
        return MAX_OUTPUT_TOKENS  # a chat without a limit ends when the model ends it
    return request.output_tokens
