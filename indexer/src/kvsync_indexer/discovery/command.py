"""Finds the engine and its arguments in the command of a container.

Kubernetes replaces `$(NAME)` by the container's environment. A shell form is split by `shell`; exactly one of its
commands must start a known engine. Otherwise the arguments are unknown, and the pod must not be followed on defaults.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from kvsync_indexer.discovery.limits import MAX_ARGUMENT_BYTES, ArgumentsError, quoted
from kvsync_indexer.discovery.shell import UNKNOWN, Script, mark

EngineKind = Literal["vllm", "sglang", "trtllm"]

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_TALKERS = frozenset({"echo", "printf", "pip", "which", "test", "[", "[[", ":"})
_WRAPPER_WORDS = 8
"""How many words, such as those of `tini -- env A=b`, may precede a shell."""
_NESTING = 3
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_PROGRAMS: dict[str, EngineKind] = {"trtllm-serve": "trtllm", "kvsync-mockpod": "vllm"}
_SERVE: dict[str, EngineKind] = {"vllm": "vllm", "sglang": "sglang"}
_MODULES: dict[str, EngineKind] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "tensorrt_llm": "trtllm",
    "dynamo.vllm": "vllm",
    "dynamo.sglang": "sglang",
    "dynamo.trtllm": "trtllm",
    "kvsync_mockpod": "vllm",
}


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """The arguments of an engine, without the program; `kind` is None if the program is the image's or unknown."""

    kind: EngineKind | None
    words: tuple[str, ...]


def engine_command(container: Mapping[str, Any]) -> EngineCommand:
    """Find the engine's arguments. Raises ArgumentsError if a shell hides them, or if they are too large."""
    words = [*_strings(container, "command"), *_strings(container, "args")]
    environment = _environment(container)
    size = sum(map(len, words)) + sum(map(len, environment.values()))
    if size > MAX_ARGUMENT_BYTES or len(words) > MAX_ARGUMENT_BYTES // 16:
        raise ArgumentsError(
            f"the container has {len(words)} arguments of {size} characters; the limit is {MAX_ARGUMENT_BYTES}"
        )
    return _find([_substitute(word, environment) for word in words], environment, 0)


def _strings(container: Mapping[str, Any], field: str) -> list[str]:
    found = container.get(field) or []
    if not isinstance(found, list) or not all(isinstance(word, str) and UNKNOWN not in word for word in found):
        raise ArgumentsError(f"the container's {field} {quoted(found)} is not a list of texts")
    return found


def _environment(container: Mapping[str, Any]) -> dict[str, str]:
    """The variables with literal values; the others are unknown."""
    known: dict[str, str] = {}
    for item in container.get("env") or ():
        name, value = str(item.get("name")), item.get("value", "")
        if "valueFrom" in item or not isinstance(value, str) or UNKNOWN in value:
            known.pop(name, None)
        else:
            known[name] = value
    return known


def _substitute(word: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environment.get(match[1], match[0])

    grown = len(word) + word.count("$(") * max(map(len, environment.values()), default=0)
    if grown > 16 * MAX_ARGUMENT_BYTES:
        raise ArgumentsError(f"the argument {quoted(word)} expands to too many characters")
    return _REFERENCE.sub(value, word)


def _find(words: list[str], environment: Mapping[str, str], depth: int) -> EngineCommand:
    shell = _shell_at(words)
    if shell is not None:
        script = _script(words[shell + 1 :], words[shell])
        if depth >= _NESTING:
            raise ArgumentsError("shells start each other too often")
        return _only_engine(Script(script[0], environment, script[1:]).commands(), environment, depth)
    if words and words[0].endswith((".sh", ".bash")) and not any(_is_events_flag(word) for word in words):
        raise ArgumentsError(f"the container runs the script {quoted(words[0])}, which hides the engine's arguments")
    # Kubernetes leaves a reference to an unknown variable as it is; a shell takes it for a command substitution.
    marked = [_REFERENCE.sub(lambda match: mark(match[0]), word) for word in words]
    return engine_in(marked) or EngineCommand(None, tuple(marked))


def _is_events_flag(word: str) -> bool:
    return word.replace("_", "-").startswith("--kv-events-config")


def _shell_at(words: Sequence[str]) -> int | None:
    for at, word in enumerate(words[:_WRAPPER_WORDS]):
        if PurePosixPath(word).name in _SHELLS:
            return at
        if engine_in(words[at : at + 3]) is not None:
            return None
    return None


def _script(words: Sequence[str], shell: str) -> list[str]:
    """The script of `sh -c` and its positional parameters from $1 on. Raises ArgumentsError if there is none."""
    at, inline = 0, False
    while at < len(words) and words[at][:1] in ("-", "+") and words[at] != "--":
        letters = words[at][1:] if not words[at].startswith("--") else ""
        inline = inline or "c" in letters
        at += 2 if "o" in letters.lower() else 1
    at += words[at : at + 1] == ["--"]
    if not inline or at >= len(words):
        what = f"the script {quoted(words[at])}" if at < len(words) else "no script that the pod's spec shows"
        raise ArgumentsError(f"{quoted(shell)} runs {what}, so that the engine's arguments are hidden")
    return [words[at], *words[at + 2 :]]


def _only_engine(commands: Iterable[list[str]], environment: Mapping[str, str], depth: int) -> EngineCommand:
    found: list[EngineCommand] = []
    for words in commands:
        if _shell_at(words) is not None:
            found.append(_find(words, environment, depth + 1))
        elif (engine := engine_in(words)) is not None:
            found.append(engine)
    if len(found) != 1:
        which = f"{len(found)} engines" if found else "no engine that is known (vLLM, SGLang or TensorRT-LLM)"
        raise ArgumentsError(f"the shell command starts {which}, so that the engine's arguments are unknown")
    return found[0]


def engine_in(words: Sequence[str]) -> EngineCommand | None:
    """The engine that one simple command starts, after wrappers such as `exec`, `env` or `numactl`."""
    if words and PurePosixPath(words[0]).name in _TALKERS:
        return None
    for at, word in enumerate(words):
        following = words[at + 1] if at + 1 < len(words) else ""
        program = PurePosixPath(word).name
        if program in _SERVE and following == "serve":
            return EngineCommand(_SERVE[program], tuple(words[at + 1 :]))
        if program in _PROGRAMS:
            return EngineCommand(_PROGRAMS[program], ("serve", *words[at + 1 :]))
        if word == "-m":
            for module, kind in _MODULES.items():
                if following == module or following.startswith(f"{module}."):
                    return EngineCommand(kind, tuple(words[at + 2 :]))
    return None
