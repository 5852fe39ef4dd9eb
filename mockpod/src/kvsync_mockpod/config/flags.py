"""The command line, generated from the fields of `PodConfig`.

It accepts what `vllm serve` accepts, in the forms that `config.arguments` knows, and the model as an argument. Flags of
vLLM that have no meaning without a GPU are accepted and ignored.
"""

import functools
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from kvsync_mockpod.config.arguments import Grammar, normalize
from kvsync_mockpod.config.model import PodConfig
from kvsync_mockpod.config.vllm_flags import VllmFlag, recorded

_SEVERAL = ("served_model_name", "api_key", "lora_modules")
"""Fields whose flag may be followed by several values."""
_WRITTEN = ("max_model_len", "max_num_batched_tokens", "allowed_origins", "allowed_methods", "allowed_headers")
"""Fields whose values the model reads from text."""
IGNORED_FLAGS = {name: flag for name, flag in recorded().items() if name not in {*PodConfig.model_fields, "config"}}
"""Flags of `vllm serve` that are accepted and ignored, so that the arguments of a Deployment need not change."""


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _click_type(annotation: object) -> tuple[Any, bool]:
    """The click type of a field's annotation, and whether it is a switch."""
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is types.UnionType or type(None) in get_args(annotation):
        annotation = options[0]
    if annotation is bool:
        return bool, True
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation)), False
    if annotation in (int, float):
        return annotation, False
    return str, False


def _option(name: str, field: FieldInfo) -> click.Option:
    kind, switch = _click_type(field.annotation)
    shown = field.description or ""
    if field.default not in (None, (), "") and not field.is_required():
        shown = f"{shown} [{str(field.default).lower() if switch else field.default}]"
    if switch:
        return click.Option([f"{_flag(name)}/--no-{_flag(name)[2:]}", name], default=None, help=shown)
    if name in _SEVERAL:
        return click.Option([_flag(name), name], multiple=True, default=None, help=shown)
    if name in _WRITTEN:
        kind = str
    if name == "mock_faults":
        kind = click.Path(path_type=Path)
    return click.Option([_flag(name), name], type=kind, default=None, help=shown)


def build_options() -> list[click.Parameter]:
    """All options: one per field, `--config`, and the ignored flags of vLLM (hidden)."""
    options: list[click.Parameter] = [click.Argument(["model_tag"], required=False)]
    options.append(
        click.Option(["--config", "config_file"], type=click.Path(path_type=Path), help="YAML file with the same keys")
    )
    options += [_option(name, field) for name, field in PodConfig.model_fields.items()]
    options += [_ignored(flag) for flag in IGNORED_FLAGS.values()]
    return options


def _ignored(flag: VllmFlag) -> click.Option:
    names = [_flag(flag.name), *flag.aliases]
    if flag.values == "none":
        names[0] += f"/--no-{names[0][2:]}"
        return click.Option([*names, f"ignored_{flag.name}"], hidden=True, default=None, is_flag=True)
    several = flag.values == "some"
    return click.Option([*names, f"ignored_{flag.name}"], hidden=True, default=None, multiple=several)


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """Convert vLLM's conventions to click's.

    Raises:
        ConfigError: a flag is unknown; the message suggests the nearest one.
    """
    return normalize(arguments, _grammar())


@functools.cache
def _grammar() -> Grammar:
    flags = recorded()
    names = {name for option in build_options() for name in (*option.opts, *option.secondary_opts)}
    several = {*_SEVERAL, *(name for name, flag in IGNORED_FLAGS.items() if flag.values == "some")}
    return Grammar(
        flags={*names, "--help", "--version"},
        several={_flag(name) for name in several},
        optional={_flag(name) for name, flag in IGNORED_FLAGS.items() if flag.values == "optional"},
        shorts={short: _flag(name) for name, flag in flags.items() for short in flag.shorts},
    )
