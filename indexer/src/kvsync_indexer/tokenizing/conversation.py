"""From the messages and tools of a request to what an engine gives its chat template.

The rules are those of vLLM's renderer (0.32): contents become texts or lists of parts, as the template takes them; the
arguments of tool calls become objects; tools have the fields that vLLM knows. What vLLM would refuse raises
RequestError.
"""

import json
from typing import Any, Final

from kvsync_indexer.errors import RequestError
from kvsync_indexer.tokenizing.contents import ContentFormat

_TEXT_KEYS: Final = {"refusal": "refusal", "thinking": "thinking"}
"""Where a part of this type has its text; the others have it in `text`."""
_PART_FIELDS: Final = frozenset(
    {
        "type", "text", "refusal", "thinking", "closed", "data", "file", "name", "uuid", "prompt_cache_breakpoint",
        "image_url", "image_pil", "image_embeds", "audio_url", "audio_embeds", "input_audio", "video_url",
        "video_embeds",
    }
)  # fmt: skip
"""Fields of a part that vLLM consumes; it hands all others on to the template."""
_BILLING_HEADER: Final = "x-anthropic-billing-header"
"""A line of Claude Code that differs in each request, and that vLLM removes from system messages."""


def conversation_of(messages: object, form: ContentFormat) -> list[dict[str, Any]]:
    """The messages as the template sees them. Raises RequestError."""
    if not isinstance(messages, list) or not messages:
        raise RequestError(422, "messages must be a list that is not empty", field="messages")
    return [_message(message, form) for message in messages]


def with_system_for_developer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages for a template that does not know the role `developer`: one system message in front."""
    if not any(message["role"] == "developer" for message in messages):
        return messages
    renamed = [
        {**{key: value for key, value in message.items() if key != "tools"}, "role": "system"}
        if message["role"] == "developer"
        else message
        for message in messages
    ]
    places = [index for index, message in enumerate(renamed) if message["role"] == "system"]
    if places == [0]:
        return renamed
    texts = [_joined(renamed[index].get("content", "")) for index in places]
    rest = [message for message in renamed if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(text for text in texts if text)}, *rest]


def tools_of(tools: object) -> list[dict[str, Any]] | None:
    """The tools as the template sees them: fields that vLLM does not know are left out. Raises RequestError."""
    if tools is None:
        return None
    if not isinstance(tools, list) or not tools:
        raise RequestError(422, "tools must be a list that is not empty", field="tools")
    return [_tool(tool) for tool in tools]


def _tool(tool: object) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(tool, dict) or tool.get("type", "function") != "function" or not isinstance(function, dict):
        raise RequestError(422, "tools must be of type function", field="tools")
    seen = {name: function.get(name) for name in ("name", "description", "parameters")}
    defer = tool.get("defer_loading")
    inner = function.get("defer_loading")
    more = {"strict": function.get("strict"), "defer_loading": defer if inner is None else inner}
    seen |= {name: value for name, value in more.items() if value is not None}
    return {"type": "function", "function": seen} | ({} if defer is None else {"defer_loading": defer})


def _message(message: object, form: ContentFormat) -> dict[str, Any]:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str):
        raise RequestError(422, "each message must be an object with a role", field="messages")
    parts = _parts(message.get("content"))
    if role == "system":
        parts = [kept for part in parts if (kept := _without_billing(part)) is not None]
    items = [item for part in parts if (item := _item(part)) is not None]
    seen: dict[str, Any] = {"role": role}
    seen["content"] = items if form == "openai" else "\n".join(_text(item) for item in items)
    if role == "assistant":
        _add_assistant(message, seen)
    elif role == "tool":
        if "tool_call_id" in message:
            seen["tool_call_id"] = message["tool_call_id"]
        if form == "openai" and all(item["type"] == "text" for item in items):
            seen["content"] = "\n".join(item["text"] for item in items)
    for name in ("name", "task"):
        if isinstance(message.get(name), str):
            seen[name] = message[name]
    if role == "developer":
        seen["tools"] = message.get("tools")
    return seen


def _parts(content: object) -> list[Any]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise RequestError(422, "the content of a message must be a text, a list or null", field="messages")
    return content


def _item(part: object) -> dict[str, Any] | None:
    """A part as the template sees it; None if it is empty."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        raise RequestError(422, "a part of a content must be a text or an object", field="messages")
    kind = part.get("type", "text")
    if kind == "tool_reference":
        return {"type": kind, "name": part.get("name", part.get("tool_reference"))}
    text = part.get(_TEXT_KEYS.get(str(kind), "text"))
    if text is None and kind in ("text", "refusal"):
        return None
    if not isinstance(text, str):
        raise RequestError(422, f"a part of type {str(kind)[:40]!r} has no text", field="messages")
    return {"type": "text", "text": text} | {name: part[name] for name in part if name not in _PART_FIELDS}


def _text(item: dict[str, Any]) -> str:
    return str(item["text"] if item["type"] == "text" else item["name"])


def _without_billing(part: Any) -> Any:  # noqa: ANN401
    """The part without the line of Claude Code; None if nothing is left of it."""
    text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
    if not isinstance(text, str) or not text.startswith(_BILLING_HEADER):
        return part
    rest = text.partition("\n")[2]
    if not rest:
        return None
    return rest if isinstance(part, str) else {**part, "text": rest}


def _add_assistant(message: dict[str, Any], seen: dict[str, Any]) -> None:
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list):
            raise RequestError(422, "tool_calls must be a list", field="messages")
        seen["tool_calls"] = [_call(call) for call in calls]
    reasoning = message.get("reasoning")
    if reasoning is None:
        reasoning = message.get("reasoning_content")
    if reasoning is not None:
        seen["reasoning"] = seen["reasoning_content"] = reasoning


def _call(call: object) -> dict[str, Any]:
    """A tool call in the order of fields that vLLM's validation gives it, with its arguments as an object."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or call.get("type", "function") != "function" or not isinstance(function, dict):
        raise RequestError(422, "tool_calls must be of type function", field="messages")
    ordered = _ordered(function, ("arguments", "name"))
    ordered["arguments"] = _arguments(function.get("arguments"))
    return _ordered(call, ("id", "function", "type")) | {"function": ordered}


def _arguments(given: object) -> dict[str, Any]:
    if isinstance(given, str) and given:
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return {}
    return given if isinstance(given, dict) else {}


def _ordered(fields: dict[str, Any], first: tuple[str, ...]) -> dict[str, Any]:
    known = {name: fields[name] for name in first if name in fields}
    return known | {name: value for name, value in fields.items() if name not in known}


def _joined(content: object) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if isinstance(part, dict) and "text" in part)
    return str(content)
