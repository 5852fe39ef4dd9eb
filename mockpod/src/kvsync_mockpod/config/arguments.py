"""Turns the arguments that `vllm serve` accepts into those that click accepts.

vLLM's parser takes underscores for dashes, several values after one flag, short names of several letters, `-O3`, and
parts of a JSON value as flags of their own: `--kv-events-config.topic t`. The rules are those of
`FlexibleArgumentParser` in vllm/utils/argparse_utils.py.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvsync_mockpod.config.lengths import parse_length
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.suggestions import did_you_mean


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the arguments may be. Flags are written with dashes in front."""

    flags: Collection[str]
    several: Collection[str]
    """Flags that may be followed by several values."""
    optional: Collection[str]
    """Flags that may be followed by a value."""
    shorts: Mapping[str, str]
    """Long flag by short flag."""


def normalize(arguments: Sequence[str], grammar: Grammar) -> list[str]:
    """The arguments with one value per flag and one spelling of each flag.

    Raises:
        ConfigError: a flag is unknown; the message suggests the nearest one.
    """
    result: list[str] = []
    parts: dict[str, dict[str, Any]] = {}
    several: str | None = None
    first = False
    rest = list(arguments)
    while rest:
        argument = _long_form(rest.pop(0), grammar.shorts)
        head, equals, value = argument.partition("=")
        if not head.startswith("--"):
            if several is not None and not first and not argument.startswith("-"):
                result.append(several)
            result.append(argument)
            first = False
            continue
        flag, dot, path = head.partition(".")
        flag = _known(flag.replace("_", "-"), head, grammar.flags)
        if dot:
            if not equals and not rest:
                raise ConfigError(f"{head}: needs a value")
            _merge(parts.setdefault(flag, {}), path, value if equals else rest.pop(0))
            several = None
            continue
        several, first = (flag if flag in grammar.several else None), not equals
        if flag in grammar.optional and not equals and (not rest or rest[0].startswith("-")):
            equals = "="
        result.append(flag + equals + value)
    return [*result, *(f"{flag}={json.dumps(value)}" for flag, value in parts.items())]


def _known(flag: str, given: str, flags: Collection[str]) -> str:
    if flag not in flags:
        raise ConfigError(f"no such flag: {given}{did_you_mean(flag, sorted(flags))}")
    return flag


def _long_form(argument: str, shorts: Mapping[str, str]) -> str:
    """A short flag as the long one; `-O3` sets the optimization level, `-O.key` a part of the compilation."""
    if not argument.startswith("-") or argument.startswith("--"):
        return argument
    head, equals, value = argument.partition("=")
    base, dot, path = head.partition(".")
    if base == "-O" and dot:
        return f"--compilation-config.{path}{equals}{value}"
    if base in shorts:
        return shorts[base] + dot + path + equals + value
    if head == "-O":
        return "--optimization-level" + equals + value
    if head.startswith("-O"):
        return f"--optimization-level={head[2:]}"
    return argument


def _merge(target: dict[str, Any], path: str, text: str) -> None:
    """Set the part of a JSON value that `path` names; a path that ends in + adds to a list."""
    *parents, last = path.removesuffix("+").split(".")
    for key in parents:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    if path.endswith("+"):
        before = target.get(last)
        target[last] = [*(before if isinstance(before, list) else []), *text.split(",")]
    else:
        target[last] = _value(text)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return parse_length(text)
    except ValueError:
        return text
