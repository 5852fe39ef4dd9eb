"""A tokenizer in the form of Hugging Face: `tokenizer.json`, and beside it settings and chat templates.

`tokenizers` and `jinja2` are optional dependencies (`kvsync-indexer[hf]`). Nothing is downloaded.
"""

import json
from pathlib import Path
from typing import Any, Final

import jinja2
from tokenizers import AddedToken, Tokenizer

from kvsync_indexer.errors import RequestError, TokenizeError, UnknownPromptError
from kvsync_indexer.tokenizing.conversation import conversation_of, tools_of, with_system_for_developer
from kvsync_indexer.tokenizing.templates import ChatTemplate

MOST_FILE_BYTES: Final = 256 << 20
_SPECIAL: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_HARMONY_TYPES: Final = frozenset({"gpt_oss"})
"""Model types whose chats the engine renders with OpenAI's Harmony encoding and not with the template."""
_DEFAULT, _TOOL_USE = "default", "tool_use"
_REFUSED: Final = frozenset({"chat_template", "tokenize"})
"""Template arguments that vLLM refuses."""
_UNKNOWN: Final = frozenset({"padding", "truncation", "max_length", "return_dict", "return_tensors"})
"""Template arguments that vLLM hands to `transformers`, which changes the tokens and not the text."""


class HuggingFaceText:
    """Encodes as an engine that was started with the folder."""

    def __init__(self, path: Path) -> None:
        """Load the files. Raises TokenizeError, which names the file."""
        folder, file = (path, path / "tokenizer.json") if path.is_dir() else (path.parent, path)
        config = _read_json(folder / "tokenizer_config.json")
        self._special = _special_tokens(_read_json(folder / "special_tokens_map.json") | config)
        self._tokenizer = _load(file, config)
        self._templates = _templates(folder, config)
        self._harmony = _read_json(folder / "config.json").get("model_type") in _HARMONY_TYPES

    def encode(self, body: dict[str, Any]) -> list[int]:
        """The tokens of the body of a `/tokenize` request. Raises RequestError, UnknownPromptError."""
        if body.get("prompt") is not None:
            return self._ids(body["prompt"], add_special_tokens=body.get("add_special_tokens", True))
        return self._ids(self._render(body), add_special_tokens=body.get("add_special_tokens", False))

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        except (TypeError, UnicodeError):
            raise RequestError(422, "the text is not valid Unicode") from None
        return ids

    def _render(self, body: dict[str, Any]) -> str:
        if body.get("chat_template") is not None:
            raise UnknownPromptError("a chat template in a request is rendered by the engine only, if at all")
        if self._harmony:
            raise UnknownPromptError("the engine renders chats of this model with the Harmony encoding")
        arguments = body.get("chat_template_kwargs") or {}
        if not isinstance(arguments, dict) or not _REFUSED.isdisjoint(arguments):
            raise RequestError(422, "chat_template_kwargs are not template arguments", field="chat_template_kwargs")
        if not _UNKNOWN.isdisjoint(arguments):
            raise UnknownPromptError("chat_template_kwargs have arguments for the tokenizer of the engine")
        continues = bool(body.get("continue_final_message", False))
        prompts = bool(body.get("add_generation_prompt", True))
        if continues and prompts:
            raise RequestError(
                422, "continue_final_message and add_generation_prompt exclude each other",
                field="continue_final_message",
            )  # fmt: skip
        tools = tools_of(body.get("tools"))
        template = self._template(has_tools=tools is not None)
        messages = conversation_of(body["messages"], template.contents)
        if not template.knows_developer:
            messages = with_system_for_developer(messages)
        variables = {"tools": None, "documents": None, **self._special, **arguments}
        variables["add_generation_prompt"] = prompts
        if tools is not None:
            variables["tools"] = tools
        return template.render(messages, variables, continue_final=continues)

    def _template(self, *, has_tools: bool) -> ChatTemplate:
        found = self._templates.get(_TOOL_USE) if has_tools else None
        found = found or self._templates.get(_DEFAULT)
        if found is None:
            raise RequestError(422, "the tokenizer's folder has no chat template", field="messages")
        return found


def _load(file: Path, config: dict[str, Any]) -> Tokenizer:
    """The tokenizer; `add_bos_token` and `add_eos_token` have no effect beside a `tokenizer.json`, as in an engine."""
    _check_size(file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # noqa: BLE001  the library raises bare exceptions
        raise TokenizeError(f"{file}: {error}"[:300]) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for _, fields in sorted((config.get("added_tokens_decoder") or {}).items(), key=lambda item: int(item[0])):
        if fields["content"] not in present:
            tokenizer.add_tokens([AddedToken(**fields)])
    return tokenizer


def _templates(folder: Path, config: dict[str, Any]) -> dict[str, ChatTemplate]:
    """The chat templates by name; files of their own go before those in the settings."""
    sources: dict[str, str] = {}
    for given in (_read_json(folder / "chat_template.json").get("chat_template"), config.get("chat_template")):
        if isinstance(given, str):
            sources[_DEFAULT] = given
        elif isinstance(given, dict):
            sources |= given
        else:
            sources |= {each["name"]: each["template"] for each in given or ()}
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        sources[file.stem] = _read_text(file)
    if (folder / "chat_template.jinja").is_file():
        sources[_DEFAULT] = _read_text(folder / "chat_template.jinja")
    try:
        return {name: ChatTemplate(source) for name, source in sources.items()}
    except jinja2.TemplateError as error:
        raise TokenizeError(f"{folder}: a chat template cannot be used: {error}"[:300]) from None


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL:
        value = config.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


def _check_size(file: Path) -> None:
    try:
        size = file.stat().st_size
    except OSError as error:
        raise TokenizeError(f"{file}: {error.strerror}") from None
    if size > MOST_FILE_BYTES:
        raise TokenizeError(f"{file}: {size} bytes, at most {MOST_FILE_BYTES} are read")


def _read_text(file: Path) -> str:
    _check_size(file)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizeError(f"{file}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _read_json(file: Path) -> dict[str, Any]:
    """The object in a file; empty if there is no such file."""
    if not file.is_file():
        return {}
    try:
        content = json.loads(_read_text(file))
    except (ValueError, RecursionError) as error:
        raise TokenizeError(f"{file}: not JSON: {error}"[:300]) from None
    if not isinstance(content, dict):
        raise TokenizeError(f"{file}: must be an object")
    return content
