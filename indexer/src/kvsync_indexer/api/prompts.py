"""From the body of an OpenAI request to the prompt that an engine looks up in its cache.

The tokens of a prompt depend on many fields besides its text: tools, template arguments, special tokens, truncation.
This module is the one place that knows which, so that a router, the service and any later front ask about the same
prompt that the engine computes. The rules are those of vLLM's HTTP front end (0.10 to 0.33).

A prompt is one of three kinds. Usually its tokens can be known. Some requests make the engine skip its prefix cache,
so nothing is hit whatever is resident. And some prompts cannot be known from outside, such as those with pictures:
for these, no number is a prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text", "refusal", "thinking", "tool_reference"})
"""Content parts that a chat template renders as text."""
_MEDIA_KEYS: Final = frozenset(
    f"{kind}{form}" for kind in ("image", "audio", "video") for form in ("_url", "_pil", "_embeds")
) | {"input_image", "input_audio", "prompt_embeds"}
_UNSET: Final = (None, "auto")
"""Values of template arguments that vLLM treats as absent."""


class PromptFields(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What decides the tokens of a prompt besides its text, and whether the engine looks them up. Names are vLLM's."""

    tools: Any = None
    tool_choice: Any = None
    """`none` removes the tools from the prompt only on a server that was started with
    `--exclude-tools-when-tool-choice-none`."""
    documents: Any = None
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    """Longest prompt in tokens; -1 stands for the length of the model."""
    max_tokens: int | None = None
    """Longest answer in tokens. It only matters to `truncate_prompt_tokens: -1`, which leaves room for one token."""
    truncation_side: str | None = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None
    prompt_logprobs: int | None = None
    echo: bool | None = None
    logprobs: int | bool | None = None
    top_logprobs: int | None = None


class RequestBody(PromptFields, kw_only=True):
    """The fields of a completion or a chat that a router reads. All others are the engine's business."""

    model: str | None = None
    prompt: str | list[int | str | list[int]] | None = None
    prompt_embeds: Any = None
    messages: Any = None
    max_completion_tokens: int | None = None
    cache_salt: str | None = None
    stream: bool | None = None
    n: int | None = None
    best_of: int | None = None
    use_beam_search: bool | None = None
    kv_transfer_params: Any = None


@dataclass(frozen=True, slots=True)
class FirstPrompt:
    """The first prompt of a body, in the one form that it has; every field is None if the body has no prompt."""

    token_ids: list[int] | None = None
    text: str | None = None
    messages: list[dict[str, Any]] | None = None
    alone: bool = True
    """The body has one prompt and asks for one answer, so that the usage in the answer is about this prompt."""


def first_prompt(body: RequestBody) -> FirstPrompt:
    """The prompt that decides where a request goes. All prompts of one request go to the same engine."""
    alone = body.n in (None, 1) and body.best_of in (None, 1) and not body.use_beam_search
    prompt: object = body.prompt
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        alone = alone and len(prompt) == 1
        prompt = prompt[0]
    if isinstance(prompt, str):
        return FirstPrompt(text=prompt, alone=alone)
    if isinstance(prompt, list) and set(map(type, prompt)) <= {int}:
        return FirstPrompt(token_ids=prompt, alone=alone)
    if isinstance(body.messages, list) and all(isinstance(each, dict) for each in body.messages):
        return FirstPrompt(messages=body.messages, alone=alone)
    return FirstPrompt(alone=alone)


def skips_cache(fields: PromptFields, *, chat: bool) -> bool:
    """Whether the engine computes the whole prompt, because its log probabilities are wanted.

    A chat with `echo` has them as well, since `top_logprobs` is 0 by default and 0 asks for the prompt's own tokens.
    """
    if fields.prompt_logprobs is not None:
        return True
    return bool(fields.echo) and (chat or fields.logprobs is not None)


def unknown_part(messages: object) -> str | None:
    """Why the tokens of these messages cannot be known; None if they can."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if isinstance(part, dict):
                kind = part.get("type", "text")
                if kind not in TEXT_PARTS or not _MEDIA_KEYS.isdisjoint(part):
                    return f"a content part of type {str(kind)[:40]!r} has tokens that only the engine knows"
    return None


def unknown_body(body: RequestBody) -> str | None:
    """Why the prompt of this body cannot be known; None if it can, or if there is no prompt."""
    if body.prompt_embeds is not None:
        return "prompt_embeds have no tokens"
    if body.kv_transfer_params:
        return "kv_transfer_params bring their own cache"
    return unknown_part(body.messages) if body.prompt is None else None


def uses_harmony(model: str) -> bool:
    """Whether the name is one of OpenAI's gpt-oss models, whose chats vLLM renders without a chat template.

    The engine adds the date and instructions of its own, and `/tokenize` renders such a chat in another way.
    """
    return "gpt-oss" in model.lower().replace("_", "-")


def tokenize_body(
    fields: PromptFields, prompt: str | None, messages: object, *, excludes_tools: bool = False
) -> dict[str, Any]:
    """The body that makes an engine's `/tokenize` return the tokens of this prompt, before any truncation.

    `excludes_tools`: the engine leaves tools out if `tool_choice` is `none`. `/tokenize` has no fields for documents
    and the reasoning effort, but they reach the template as arguments too.
    """
    if prompt is not None:
        return _given({"prompt": prompt, "add_special_tokens": fields.add_special_tokens})
    return _given(
        {
            "messages": messages,
            "tools": None if excludes_tools and fields.tool_choice == "none" else fields.tools,
            "chat_template": fields.chat_template,
            "chat_template_kwargs": _template_arguments(fields),
            "add_generation_prompt": fields.add_generation_prompt,
            "continue_final_message": fields.continue_final_message,
            "add_special_tokens": fields.add_special_tokens,
            "mm_processor_kwargs": fields.mm_processor_kwargs,
            "media_io_kwargs": fields.media_io_kwargs,
        }
    )


def _template_arguments(fields: PromptFields) -> Any:  # noqa: ANN401
    given = fields.chat_template_kwargs
    if given is not None and not isinstance(given, dict):
        return given
    arguments: dict[str, Any] = dict(given or {})
    if fields.documents is not None:
        arguments["documents"] = fields.documents
    if fields.reasoning_effort not in _UNSET:
        arguments["reasoning_effort"] = fields.reasoning_effort
        arguments.setdefault("enable_thinking", fields.reasoning_effort != "none")
    return arguments or None


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def truncated(tokens: Sequence[int], limit: int, side: str | None, bare: Sequence[int] | None) -> list[int] | None:
    """The prompt that is left of `tokens` if it may have `limit` tokens; None if that cannot be told.

    Args:
        tokens: The whole prompt.
        limit: At least 0.
        side: `right` removes the end, `left` the beginning. None leaves it to the engine's tokenizer, which removes the
            beginning of the text and puts its special tokens around what is left.
        bare: The prompt without special tokens; None if it has none.
    """
    if len(tokens) <= limit:
        return list(tokens)
    if side is not None or bare is None or len(bare) == len(tokens):
        return list(tokens[:limit]) if side == "right" else list(tokens[len(tokens) - limit :])
    added = len(tokens) - len(bare)
    for before in range(added + 1):
        if list(tokens[before : before + len(bare)]) == list(bare):
            kept = max(limit - added, 0)
            return [*tokens[:before], *bare[len(bare) - kept :], *tokens[before + len(bare) :]]
    return None
