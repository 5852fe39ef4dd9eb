"""The limits of what one pod may make the index read, and the checks that enforce them.

Whoever may create a pod with the selected labels writes its annotations and arguments, so all of them are untrusted.
Messages quote a value only in part, because they appear in logs, metrics and answers.
"""

import json
from typing import Any

MAX_RANKS = 64
"""Data-parallel ranks of one pod, each of which takes one event link and one replay link of the index."""
MAX_RANK = 4095
MAX_ARGUMENT_BYTES = 128 * 1024
"""Size of a container's command, arguments and literal environment, before and after variables are expanded."""
MAX_JSON_BYTES = 16 * 1024
MAX_JSON_DEPTH = 8
MAX_TEXT = 1000
"""Characters of a model name or a topic."""
MAX_PROBLEM = 300
"""Characters of a problem as it is reported."""
QUOTED = 60


class ArgumentsError(ValueError):
    """A setting of the pod cannot be used; the message names it."""


def quoted(value: object) -> str:
    """At most QUOTED characters of the value's repr."""
    text = repr(value[: QUOTED + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}..."


def number(name: str, text: str, low: int, high: int) -> int:
    """The decimal number `text`. Raises ArgumentsError, which begins with `name`."""
    if not text.isascii() or not text.isdigit():
        raise ArgumentsError(f"{name} {quoted(text)} is not a number; it must be from {low} to {high}")
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(high)) or not low <= int(digits) <= high:
        raise ArgumentsError(f"{name} {quoted(text)} must be a number from {low} to {high}")
    return int(digits)


def text_of(name: str, value: object) -> str:
    """`value` if it is a text of acceptable length. Raises ArgumentsError, which begins with `name`."""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ArgumentsError(f"{name} {quoted(value)} must be a text of at most {MAX_TEXT} characters")
    return value


def parse_json(name: str, text: str, *, limit: int = MAX_JSON_BYTES) -> Any:  # noqa: ANN401
    """Parse a JSON text of bounded size and depth. Raises ArgumentsError, which begins with `name`."""
    if len(text) > limit:
        raise ArgumentsError(f"{name} has {len(text)} characters; the limit is {limit}")
    if _depth(text) > MAX_JSON_DEPTH:
        raise ArgumentsError(f"{name} is nested more than {MAX_JSON_DEPTH} levels deep")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentsError(f"{name} is not JSON: {str(error)[:QUOTED]}") from None


def _depth(text: str) -> int:
    """The deepest nesting of brackets outside of strings; it is exact for JSON, and an upper bound for other text."""
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest
