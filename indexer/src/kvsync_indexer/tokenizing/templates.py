"""Chat templates, rendered as `transformers` renders them: Jinja in a sandbox with a few additions.

A template comes from the folder of a model, which whoever runs the index chose. It runs in Jinja's immutable sandbox
all the same, because it is data of a third party. Templates in requests are never rendered.
"""

import copy
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kvsync_indexer.errors import RequestError
from kvsync_indexer.tokenizing.contents import content_format

_MARK: Final = "CONTINUE_FINAL_MESSAGE_TAG "
"""Stands behind the text that is to be continued, while the template is rendered. The spaces at its end tell whether
the template strips the text. It is the text that `transformers` uses, because a template could treat another one
differently."""
MOST_DETAIL: Final = 200


class _Generation(Extension):
    """`{% generation %}`, which marks the assistant's tokens in training and has no effect here."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes inside the block."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template."""

    def __init__(self, source: str, now: Callable[[], datetime] = datetime.now) -> None:
        """`now` is the local time for `strftime_now`. Raises jinja2.TemplateSyntaxError."""
        self._source = source
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: now().strftime(form)
        self._template = environment.from_string(source)
        self.contents = content_format(environment.parse(source))
        """How the template takes the content of a message."""
        self.knows_developer = '"developer"' in source or "'developer'" in source

    def render(
        self, messages: list[dict[str, Any]], variables: Mapping[str, Any], *, continue_final: bool = False
    ) -> str:
        """The prompt. `variables` are all others that the template may use. Raises RequestError."""
        if continue_final:
            messages, final = self._marked(messages)
        try:
            text = self._template.render({**variables, "messages": messages})
        except RecursionError:
            raise RequestError(422, "the chat template: the messages are nested too deeply", field="messages") from None
        except Exception as error:  # noqa: BLE001  whatever the template does with what it is given
            problem = f"{type(error).__name__}: {error}" if not isinstance(error, jinja2.TemplateError) else str(error)
            raise RequestError(422, f"the chat template: {problem}"[:MOST_DETAIL], field="messages") from None
        return _cut(text, final) if continue_final else text

    def _marked(self, messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
        """The messages with a mark behind the last text, and that text."""
        messages = copy.deepcopy(messages)
        content = messages[-1].get("content")
        if isinstance(content, str) and "content" in self._source:
            messages[-1]["content"] = content + _MARK
            return messages, content
        for part in reversed(content if isinstance(content, list) else []):
            if "text" in part:
                final = str(part["text"])
                part["text"] = final + _MARK
                return messages, final
        raise RequestError(422, "the last message has no text to continue", field="continue_final_message")


def _cut(text: str, final: str) -> str:
    """The rendered text up to the mark."""
    place = text.rfind(_MARK.strip())
    if place < 0 or final.strip() not in text:
        raise RequestError(
            422, "the chat template drops the message that is to be continued", field="continue_final_message"
        )
    kept = text[:place]
    return kept if text.startswith(_MARK, place) else kept.rstrip()


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,  # noqa: ANN401
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
