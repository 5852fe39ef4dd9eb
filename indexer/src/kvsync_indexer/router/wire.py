"""What the router reads of an OpenAI request: enough to score it, nothing to rewrite.

The body goes to the engine byte for byte; this is only a look at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from kvsync_indexer.router.errors import RequestRefusedError

DEFAULT_OUTPUT_TOKENS = 16
"""vLLM's default for /v1/completions; a chat without a limit is predicted the same."""
CHARACTERS_PER_TOKEN = 4
"""Rough length of a token in text, used for load only where nobody tokenized the prompt."""


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
    """Predicted output: the limit that the request sets."""
    cache_salt: str | None
    single: bool = True
    """One prompt and one choice: the answer's usage is about the prompt that was scored."""

    @property
    def estimated_tokens(self) -> int:
        """Prompt tokens: exact for token ids, by length of text otherwise."""
        if self.token_ids is not None:
            return len(self.token_ids)
        text = self.prompt if self.prompt is not None else self.messages or b""
        return len(text) // CHARACTERS_PER_TOKEN + 1


_ABSENT = (b"", b"null")
_ONE = (*_ABSENT, b"1")
_DECODER = msgspec.json.Decoder(_Body)


def parse_request(body: bytes) -> InferenceRequest:
    """Read a completion or chat body; RequestRefusedError (400) says what is wrong with it.

    Of several prompts in one request the first is scored: all go to one endpoint.
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
    messages = bytes(fields.messages)  # a Raw equals no bytes
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
