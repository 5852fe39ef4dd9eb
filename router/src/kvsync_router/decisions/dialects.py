"""Requests of `/v1/responses` and `/v1/messages` as the chats that vLLM makes of them.

Only what is certain is converted: text of any role. Everything else (tools, reasoning, a stored conversation, pictures)
depends on the version and the model of the engine, so such a prompt is unknown, and the request is placed by load.
"""

from typing import Any, NamedTuple

import msgspec

from kvsync_indexer.api import RequestBody

NOT_TEXT = "only the engine knows which prompt it makes of this request"
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})


class RoutedBody(RequestBody, kw_only=True):
    """The fields of any request that the router reads, in the form of a completion or a chat."""

    user: Any = None


class ReadBody(NamedTuple):
    """A body that was read."""

    fields: RoutedBody
    unknown: str | None = None
    """Why the prompt is unknown although it may be text."""
    previous_response: str | None = None


class _Responses(msgspec.Struct, kw_only=True):
    model: str | None = None
    input: Any = None
    instructions: Any = None
    previous_response_id: str | None = None
    max_output_tokens: int | None = None
    cache_salt: str | None = None
    stream: bool | None = None
    user: Any = None
    tools: Any = None
    reasoning: Any = None
    prompt: Any = None


class _Messages(msgspec.Struct, kw_only=True):
    model: str | None = None
    messages: Any = None
    system: Any = None
    max_tokens: int | None = None
    cache_salt: str | None = None
    stream: bool | None = None
    tools: Any = None
    thinking: Any = None
    metadata: Any = None


_RESPONSES = msgspec.json.Decoder(_Responses, strict=False)
_MESSAGES = msgspec.json.Decoder(_Messages, strict=False)
_PLAIN = msgspec.json.Decoder(RoutedBody, strict=False)


def read_chat_or_completion(body: bytes) -> ReadBody:
    """The fields of a chat or a completion. Raises the exceptions of `msgspec`."""
    return ReadBody(_PLAIN.decode(body))


def read_responses(body: bytes) -> ReadBody:
    """A request of `/v1/responses` as a chat. Raises the exceptions of `msgspec`."""
    given = _RESPONSES.decode(body)
    turns = [{"role": "user", "content": given.input}] if isinstance(given.input, str) else _turns(given.input)
    messages = _opened(given.instructions, turns)
    if given.previous_response_id or given.tools or given.reasoning or given.prompt:
        messages = None
    fields = RoutedBody(
        model=given.model,
        messages=messages,
        max_tokens=given.max_output_tokens,
        cache_salt=given.cache_salt,
        stream=given.stream,
        user=given.user,
    )
    return ReadBody(fields, NOT_TEXT if messages is None else None, given.previous_response_id)


def read_messages(body: bytes) -> ReadBody:
    """A request of `/v1/messages` as a chat. Raises the exceptions of `msgspec`."""
    given = _MESSAGES.decode(body)
    system = given.system
    if isinstance(system, list) and len(system) == 1:
        system = _only_text(system)
    messages = _opened(system, _turns(given.messages))
    if given.tools or given.thinking:
        messages = None
    fields = RoutedBody(
        model=given.model,
        messages=messages,
        max_tokens=given.max_tokens,
        cache_salt=given.cache_salt,
        stream=given.stream,
        user=given.metadata.get("user_id") if isinstance(given.metadata, dict) else None,
    )
    return ReadBody(fields, NOT_TEXT if messages is None else None)


def _opened(system: object, turns: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The conversation with its system prompt, if both are text."""
    if turns is None or not isinstance(system, str | None):
        return None
    return [{"role": "system", "content": system}, *turns] if system else turns


def _turns(items: object) -> list[dict[str, Any]] | None:
    """Messages of text. None if there is anything else among them."""
    if not isinstance(items, list) or not items:
        return None
    turns: list[dict[str, Any]] = []
    for item in items:
        if not isinstance(item, dict) or item.get("type", "message") != "message" or "role" not in item:
            return None
        content = item.get("content")
        if isinstance(content, list):
            text = _only_text(content)
            parts = [_only_text([part]) for part in content]
            if None in parts or not parts:
                return None
            content = text if text is not None else [{"type": "text", "text": part} for part in parts]
        elif not isinstance(content, str):
            return None
        turns.append({"role": item["role"], "content": content})
    return turns


def _only_text(parts: list[Any]) -> str | None:
    """The text of the only part, if it is text."""
    part = parts[0] if len(parts) == 1 else None
    if not isinstance(part, dict) or part.get("type") not in _TEXT_PARTS:
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None
