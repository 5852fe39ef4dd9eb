"""Reads the event settings from the command line of an engine, by the rules of vLLM, SGLang and TensorRT-LLM.

vLLM accepts `--flag value`, `--flag=value`, underscores for dashes, and JSON settings also key by key
(`--kv-events-config.endpoint tcp://*:5557`). Flags that do not concern the index are skipped.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvsync_indexer.discovery.command import EngineCommand, EngineKind
from kvsync_indexer.discovery.limits import MAX_RANK, ArgumentsError, number, parse_json, quoted, text_of
from kvsync_indexer.discovery.ranks import Ranks, sglang_ranks, vllm_ranks
from kvsync_indexer.discovery.shell import UNKNOWN, unknown_source

_EVENTS = "kv-events-config"
_SWITCHES = frozenset(
    {
        "mock-debug", "headless", "data-parallel-hybrid-lb", "data-parallel-external-lb",
        "data-parallel-multi-port-external-lb", "exclude-tools-when-tool-choice-none",
    }
)  # fmt: skip
_COUNTS = frozenset(
    {
        "data-parallel-size", "data-parallel-rank", "data-parallel-start-rank", "data-parallel-size-local", "nnodes",
        "node-rank",
    }
)  # fmt: skip
_WANTED = frozenset({"model", "model-path", "served-model-name", "port", "config", _EVENTS}) | _COUNTS
_SHORT = {
    "-dp": "data-parallel-size",
    "-dpn": "data-parallel-rank",
    "-dpr": "data-parallel-start-rank",
    "-dpl": "data-parallel-size-local",
    "-dph": "data-parallel-hybrid-lb",
    "-dpe": "data-parallel-external-lb",
    "-dpm": "data-parallel-multi-port-external-lb",
    "-n": "nnodes",
    "-r": "node-rank",
}
_SGLANG_NAMES = {"dp-size": "data-parallel-size", "dp": "data-parallel-size"}
_HOLDS_ARGUMENTS = re.compile(r"ARG|OPT|FLAG|EXTRA|\$[@*]", re.IGNORECASE)
HTTP_PORTS: Mapping[EngineKind | None, int] = {"vllm": 8000, "sglang": 30000, "trtllm": 8000, None: 8000}


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """The flags that were found, and None for those that were not."""

    kind: EngineKind | None = None
    model: str | None = None
    served_model_name: str | None = None
    port: int | None = None
    ranks: Ranks = field(default_factory=Ranks)
    debug: bool = False
    excludes_tools: bool = False
    events: Mapping[str, Any] | None = None
    """`--kv-events-config`, together with settings that are given key by key."""
    file: bool = False
    """Whether a configuration file may hold the flags that were not found."""


def read_arguments(command: EngineCommand) -> EngineArguments:
    """Read an engine's arguments. Raises ArgumentsError."""
    found: dict[str, str] = {}
    dotted: dict[str, str] = {}
    positional: str | None = None
    words = command.words
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        name, equals, value = _split(word)
        if name is None:
            if positional is None and at >= 2 and words[at - 2] == "serve":
                positional = word
            else:
                _check_stray(word, words[at - 2] if at >= 2 else "")
            continue
        if name in _SWITCHES:
            found[name] = value if equals else "true"
            continue
        if name not in _WANTED and not name.startswith(f"{_EVENTS}."):
            continue
        if not equals:
            if at >= len(words):
                raise ArgumentsError(f"--{name} has no value")
            value = words[at]
            at += 1
        if (source := unknown_source(value)) is not None:
            raise ArgumentsError(f"--{name} depends on {source[:60]}, whose value the pod's spec does not show")
        if name.startswith(f"{_EVENTS}."):
            dotted[name.removeprefix(f"{_EVENTS}.")] = value
        else:
            found[name] = value
    return _arguments(command.kind, found, dotted, positional)


def _split(word: str) -> tuple[str | None, bool, str]:
    """(flag name with dashes or None, whether a value is attached to it, that value)."""
    if word in _SHORT:
        return _SHORT[word], False, ""
    if not word.startswith("--"):
        return None, False, ""
    name, equals, value = word[2:].partition("=")
    head, dot, tail = name.partition(".")
    head = head.replace("_", "-")
    head = _SGLANG_NAMES.get(head, head)
    return head + dot + tail.replace("-", "_"), bool(equals), value


def _check_stray(word: str, before: str) -> None:
    """Refuse a word that consists of unknown text, unless it is the value of a flag that is not needed."""
    if not word.startswith(UNKNOWN):
        return
    source = unknown_source(word) or ""
    if not before.startswith("-") or "=" in before or _HOLDS_ARGUMENTS.search(source):
        raise ArgumentsError(f"{source[:60]} may hold further arguments, and the pod's spec does not show its value")


def _arguments(
    kind: EngineKind | None, found: dict[str, str], dotted: dict[str, str], positional: str | None
) -> EngineArguments:
    counts = {name: number(f"--{name}", found[name], 0, MAX_RANK) for name in _COUNTS if name in found}
    switches = {name for name in _SWITCHES if found.get(name, "false").lower() in ("true", "1", "yes")}
    if kind is None and "model-path" in found:
        kind = "sglang"  # the program is unknown, and only SGLang has this flag
    model = found.get("model", found.get("model-path", positional))
    if model is not None and UNKNOWN in model:
        model = None
    return EngineArguments(
        kind=kind,
        model=model or None,
        served_model_name=found.get("served-model-name"),
        port=number("--port", found["port"], 1, 65535) if "port" in found else None,
        ranks=sglang_ranks(counts) if kind == "sglang" else vllm_ranks(counts, switches),
        debug="mock-debug" in switches,
        excludes_tools="exclude-tools-when-tool-choice-none" in switches,
        events=_events(found.get(_EVENTS), dotted),
        file="config" in found,
    )


def _events(text: str | None, dotted: dict[str, str]) -> dict[str, Any] | None:
    if text is None and not dotted:
        return None
    config = {} if text is None else parse_json(f"--{_EVENTS}", text)
    if not isinstance(config, dict):
        raise ArgumentsError(f"--{_EVENTS} must be an object, not {quoted(text)}")
    for name, value in dotted.items():
        try:
            config[name] = parse_json(f"--{_EVENTS}.{name}", value)
        except ArgumentsError:
            config[name] = value
    for name in ("endpoint", "replay_endpoint", "topic", "publisher"):
        if config.get(name) is not None:
            text_of(f"--{_EVENTS} {name}", config[name])
    if not isinstance(config.get("enable_kv_cache_events", False), bool):
        value = config["enable_kv_cache_events"]
        raise ArgumentsError(f"--{_EVENTS} enable_kv_cache_events {quoted(value)} must be true or false")
    return config
