"""The command line, generated from the fields of `PodConfig`.

It accepts what `vllm serve` accepts: underscores for dashes, several values after one flag, and the model as an
argument. vLLM flags that have no meaning without a GPU are accepted and ignored.
"""

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from kvsync_mockpod.config.model import PodConfig
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.suggestions import did_you_mean

MANY = ("served_model_name", "api_key", "lora_modules")
_SHORT = {
    "-dp": "--data-parallel-size",
    "-dpa": "--data-parallel-address",
    "-dpb": "--data-parallel-backend",
    "-dpe": "--data-parallel-external-lb",
    "-dph": "--data-parallel-hybrid-lb",
    "-dpl": "--data-parallel-size-local",
    "-dpn": "--data-parallel-rank",
    "-dpp": "--data-parallel-rpc-port",
    "-dpr": "--data-parallel-start-rank",
    "-pp": "--pipeline-parallel-size",
    "-tp": "--tensor-parallel-size",
}

_IGNORED_VALUED = (
    "tensor_parallel_size pipeline_parallel_size gpu_memory_utilization dtype tokenizer tokenizer_mode "
    "download_dir load_format revision tokenizer_revision quantization kv_cache_dtype swap_space "
    "cpu_offload_gb max_logprobs uvicorn_log_level chat_template chat_template_content_format "
    "generation_config root_path tool_call_parser reasoning_parser distributed_executor_backend "
    "max_lora_rank max_cpu_loras lora_dtype compilation_config limit_mm_per_prompt kv_transfer_config "
    "hf_overrides config_format task runner optimization_level data_parallel_address data_parallel_backend "
    "data_parallel_rpc_port speculative_config override_generation_config max_seq_len_to_capture middleware "
    "ssl_keyfile ssl_certfile ssl_ca_certs ssl_cert_reqs allowed_origins allowed_methods allowed_headers"
)
_IGNORED_SWITCHES = (
    "trust_remote_code enforce_eager disable_log_requests enable_log_requests disable_log_stats "
    "enable_auto_tool_choice disable_uvicorn_access_log disable_frontend_multiprocessing enable_sleep_mode "
    "enable_request_id_headers enable_ssl_refresh allow_credentials"
)
IGNORED_FLAGS = {
    **dict.fromkeys(_IGNORED_VALUED.split(), True),
    **dict.fromkeys(_IGNORED_SWITCHES.split(), False),
}
"""Flags of `vllm serve` that are accepted and ignored, so that the arguments of a Deployment need not change.

True if the flag takes a value.
"""


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
    if name in MANY:
        return click.Option([_flag(name), name], multiple=True, default=None, help=shown)
    if name == "max_model_len":
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
    for name, valued in IGNORED_FLAGS.items():
        names = [_flag(name), f"ignored_{name}"]
        if valued:
            options.append(click.Option(names, hidden=True, default=None))
        else:
            names[0] += f"/--no-{_flag(name)[2:]}"
            options.append(click.Option(names, hidden=True, default=None, is_flag=True))
    return options


def normalize_arguments(arguments: Sequence[str]) -> list[str]:
    """Convert vLLM's conventions to click's: dashes for underscores, one value per flag.

    Raises:
        ConfigError: a flag is unknown; the message suggests the nearest one.
    """
    known = {name for option in build_options() for name in (*option.opts, *option.secondary_opts)}
    known.add("--help")
    known.add("--version")
    result: list[str] = []
    many: str | None = None
    for argument in arguments:
        head, equals, value = _long_form(argument).partition("=")
        if head.startswith("--"):
            flag = _without_key(head.replace("_", "-"))
            if flag not in known:
                raise ConfigError(f"no such flag: {head}{did_you_mean(flag, sorted(known))}")
            many = flag if flag[2:].replace("-", "_") in MANY else None
            result.append(flag + equals + value)
            count = 1 if equals else 0
        elif many is not None and count and not argument.startswith("-"):
            result += [many, argument]
        else:
            result.append(argument)
            count = 1
    return result


def _long_form(argument: str) -> str:
    """A short flag of vLLM as the long one; `-O3` sets the optimization level, `-O.key` part of a configuration."""
    head, equals, value = argument.partition("=")
    if head in _SHORT:
        return _SHORT[head] + equals + value
    if head == "-O":
        return "--optimization-level" + equals + value
    if head.startswith("-O.") and equals:
        return f"--compilation-config={value}"
    if head.startswith("-O") and head[2:].isdigit():
        return f"--optimization-level={head[2:]}"
    return argument


def _without_key(flag: str) -> str:
    """`--config.key` as `--config`, if it is one of the ignored flags: no part of it has an effect."""
    base, dot, _ = flag.partition(".")
    return base if dot and IGNORED_FLAGS.get(base[2:].replace("-", "_")) else flag
