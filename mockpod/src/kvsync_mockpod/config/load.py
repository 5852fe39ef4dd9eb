"""Builds one `PodConfig` from flags and a YAML file. Every refusal is one line.

A flag takes precedence over the file, and the file over the default. The keys of the file are the flags without the
leading dashes; dashes and underscores are equivalent.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import msgspec
from pydantic import ValidationError

from kvsync_mockpod.config.model import PodConfig
from kvsync_mockpod.config.vllm_flags import recorded
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.suggestions import did_you_mean


def read_yaml(path: Path) -> dict[str, object]:
    """Read a mapping from a YAML file, with underscores in its keys.

    Raises:
        ConfigError: names the file and the line.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(f"{path}: cannot be read: {reason}") from None
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise ConfigError(f"{where}: not YAML: {getattr(error, 'problem', None) or 'unreadable'}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{path}: must be a mapping of flag names to values")
    return {str(key).replace("-", "_"): value for key, value in loaded.items()}


def build_config(flags: Mapping[str, object], file: Path | None = None) -> PodConfig:
    """Validate flags and file.

    Raises:
        ConfigError: one line that names the field, its value and what is allowed.
    """
    given: dict[str, object] = {}
    if file is not None:
        known = {**PodConfig.model_fields, **recorded()}
        for key, value in read_yaml(file).items():
            if key in PodConfig.model_fields:
                given[key] = value
            elif key not in known:
                raise ConfigError(f"{file}: unknown key {key!r}{did_you_mean(key, known)}")
    given.update({key: value for key, value in flags.items() if value is not None and value != ()})
    for key in ("kv_events_config",):
        if isinstance(given.get(key), str):
            given[key] = _from_json(key, cast("str", given[key]))
    if "lora_modules" in given:
        given["lora_modules"] = _lora_modules(given["lora_modules"])
    try:
        return PodConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from None


def ignored_keys(file: Path) -> list[str]:
    """The keys of the file that are flags of `vllm serve` without an effect here. Raises ConfigError."""
    return [key for key in read_yaml(file) if key not in PodConfig.model_fields]


def _from_json(field: str, text: str) -> object:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{field}: {text[:80]!r} is not JSON: {error}") from None


def _lora_modules(value: object) -> list[object]:
    """Parse one or a list of `NAME=PATH`, JSON objects or (from YAML) mappings."""
    modules: list[object] = []
    for item in value if isinstance(value, list | tuple) else (value,):
        if isinstance(item, str) and item.lstrip().startswith("{"):
            modules.append(_from_json("lora_modules", item))
        elif isinstance(item, str):
            name, found, path = item.partition("=")
            if not found:
                raise ConfigError(f"lora_modules: {item!r} is not NAME=PATH or a JSON object")
            modules.append({"name": name, "path": path})
        else:
            modules.append(item)
    return modules


def _one_line(error: ValidationError) -> str:
    """The first error of pydantic: the field, its value and what is allowed."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _known_under(first["loc"][:-1])
        return f"{field}: unknown key{did_you_mean(str(first['loc'][-1]), known)}"
    message = first["msg"].removeprefix("Value error, ")
    if not field:
        return message
    more = len(error.errors()) - 1
    rest = f" (and {more} more)" if more else ""
    shown = repr(first["input"])
    return f"{field}: {shown if len(shown) <= 80 else shown[:77] + '...'} refused: {message}{rest}"


def _known_under(loc: tuple[int | str, ...]) -> Iterable[str]:
    from kvsync_mockpod.config.events import KVEventsConfig
    from kvsync_mockpod.config.model import LoraModule

    if loc and loc[0] == "kv_events_config":
        return KVEventsConfig.model_fields
    if loc and loc[0] == "lora_modules":
        return LoraModule.model_fields
    return PodConfig.model_fields
