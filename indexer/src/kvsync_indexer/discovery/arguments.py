"""Reads the event settings from the command line of a container: the flags of `vllm serve`, by vLLM's rules.

vLLM accepts `--flag value`, `--flag=value`, underscores for dashes, and JSON settings also key by key
(`--kv-events-config.endpoint tcp://*:5557`). Flags that do not concern the index are skipped.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_EVENTS = "kv-events-config"
_SWITCHES = frozenset({"mock-debug"})
_WANTED = frozenset(
    {
        "model", "served-model-name", "port", "data-parallel-size", "data-parallel-rank", "data-parallel-start-rank",
        "data-parallel-size-local", _EVENTS,
    }
)  # fmt: skip
_SHORT = {"-dp": "data-parallel-size", "-dpn": "data-parallel-rank", "-dpl": "data-parallel-size-local"}


class ArgumentsError(ValueError):
    """A flag whose value cannot be used; the message names both."""


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """The flags that were found, and None for those that were not."""

    model: str | None = None
    served_model_name: str | None = None
    port: int | None = None
    ranks: int | None = None
    """Number of ranks that publish in this pod."""
    first_rank: int | None = None
    debug: bool = False
    events: dict[str, Any] | None = field(default=None)
    """`--kv-events-config`, together with settings that are given key by key."""


def read_arguments(words: Sequence[str]) -> EngineArguments:
    """Read a container's command and arguments. Raises ArgumentsError."""
    found: dict[str, str] = {}
    dotted: dict[str, str] = {}
    positional: str | None = None
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        name, equals, value = _split(word)
        if name is None:
            if positional is None and at >= 2 and words[at - 2] == "serve":
                positional = word
            continue
        if name in _SWITCHES:
            found[name] = "true"
            continue
        if name not in _WANTED and not name.startswith(f"{_EVENTS}."):
            continue
        if not equals:
            if at >= len(words):
                raise ArgumentsError(f"--{name} has no value")
            value = words[at]
            at += 1
        if name.startswith(f"{_EVENTS}."):
            dotted[name.removeprefix(f"{_EVENTS}.")] = value
        else:
            found[name] = value
    return _arguments(found, dotted, positional)


def _split(word: str) -> tuple[str | None, bool, str]:
    """(flag name with dashes or None, whether a value is attached to it, that value)."""
    if word in _SHORT:
        return _SHORT[word], False, ""
    if not word.startswith("--"):
        return None, False, ""
    name, equals, value = word[2:].partition("=")
    head, dot, tail = name.partition(".")
    return head.replace("_", "-") + dot + tail.replace("-", "_"), bool(equals), value


def _arguments(found: dict[str, str], dotted: dict[str, str], positional: str | None) -> EngineArguments:
    size, local = _number(found, "data-parallel-size"), _number(found, "data-parallel-size-local")
    rank, start = _number(found, "data-parallel-rank"), _number(found, "data-parallel-start-rank")
    ranks = 1 if rank is not None else local if local is not None else size
    return EngineArguments(
        model=found.get("model", positional),
        served_model_name=found.get("served-model-name"),
        port=_number(found, "port"),
        ranks=ranks,
        first_rank=rank if rank is not None else start,
        debug="mock-debug" in found,
        events=_events(found.get(_EVENTS), dotted),
    )


def _number(found: dict[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit():
        raise ArgumentsError(f"--{name} {text!r} is not a number")
    return int(text)


def _events(text: str | None, dotted: dict[str, str]) -> dict[str, Any] | None:
    if text is None and not dotted:
        return None
    try:
        config = {} if text is None else json.loads(text)
    except ValueError as error:
        raise ArgumentsError(f"--{_EVENTS} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ArgumentsError(f"--{_EVENTS} must be an object, not {text!r:.80}")
    for name, value in dotted.items():
        try:
            config[name] = json.loads(value)
        except ValueError:
            config[name] = value
    return config
