r"""The chat template: messages to one prompt, in the ChatML form many open models use.

Why our own: a model's template ships with its weights. What matters here is that it is deterministic,
that a longer conversation starts with exactly the tokens of the shorter one, and that an answer generated
by the pod keeps its tokens when it comes back as an assistant message.

    <|im_start|>ROLE\nCONTENT<|im_end|>\n ... <|im_start|>assistant\n
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvsync_mockpod.errors import TextError
from kvsync_mockpod.text.tokenizer import Tokenizer

_MEDIA = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "audio_url": "audio",
    "video_url": "video",
}
MEDIA_TOKENS = {"image": 64, "audio": 32, "video": 128}


@dataclass(frozen=True, slots=True)
class MediaPart:
    """A picture, sound or film in a prompt: what identifies it and which placeholder positions it fills."""

    identity: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rendered conversation: its token ids and its media parts in order."""

    token_ids: list[int]
    media: tuple[MediaPart, ...]


def render_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    tools: Sequence[Mapping[str, object]] = (),
    add_generation_prompt: bool = True,
) -> ChatPrompt:
    """Render `messages` (OpenAI's shape). Raises `TextError` naming the message and the part it refuses."""
    tokens: list[int] = []
    media: list[MediaPart] = []
    if tools:
        listing = "\n".join(json.dumps(tool, sort_keys=True) for tool in tools)
        tokens += tokenizer.encode(f"<|im_start|>system\n# Tools\n{listing}<|im_end|>\n")
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise TextError(f"messages[{index}].role: a non-empty string is needed")
        tokens += tokenizer.encode(f"<|im_start|>{role}\n")
        _render_content(tokenizer, message, index, tokens, media)
        tokens += tokenizer.encode("<|im_end|>\n")
    if add_generation_prompt:
        tokens += tokenizer.encode("<|im_start|>assistant\n")
    return ChatPrompt(tokens, tuple(media))


def _render_content(
    tokenizer: Tokenizer, message: Mapping[str, object], index: int, tokens: list[int], media: list[MediaPart]
) -> None:
    content = message.get("content")
    if isinstance(content, str):
        tokens += tokenizer.encode(content)
    elif isinstance(content, list):
        for place, part in enumerate(content):
            _render_part(tokenizer, part, f"messages[{index}].content[{place}]", tokens, media)
    elif content is not None:
        raise TextError(f"messages[{index}].content: a string, a list of parts or null is needed")
    calls = message.get("tool_calls")
    if calls:
        tokens += tokenizer.encode("<|tool|>" + json.dumps(calls, sort_keys=True))


def _render_part(tokenizer: Tokenizer, part: object, where: str, tokens: list[int], media: list[MediaPart]) -> None:
    if isinstance(part, str):
        tokens += tokenizer.encode(part)
        return
    if not isinstance(part, dict):
        raise TextError(f"{where}: an object with a type is needed")
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text", "refusal", "thinking"):
        text = part.get("text", part.get("refusal", part.get("thinking")))
        if not isinstance(text, str):
            raise TextError(f"{where}.text: a string is needed")
        tokens += tokenizer.encode(text)
        return
    if kind in ("tool_use", "tool_result"):
        tokens += tokenizer.encode("<|tool|>" + json.dumps(part, sort_keys=True))
        return
    name = _MEDIA.get(kind) if isinstance(kind, str) else None
    if name is None:
        raise TextError(f"{where}.type: {kind!r} is not known; text, image_url, input_audio or video_url")
    identity = part.get("uuid")
    if not isinstance(identity, str) or not identity:
        identity = json.dumps({key: value for key, value in part.items() if key != "uuid"}, sort_keys=True)
    length = MEDIA_TOKENS[name]
    media.append(MediaPart(identity, len(tokens), length))
    tokens += tokenizer.encode(f"<|{name}|>") * length
