"""The flags of `vllm serve`, as the parser of a released vLLM has them, so that the pod accepts what vLLM accepts.

`vllm_flags.json` was recorded by `test/fidelity/flags.py` and names its source. Flags of earlier versions, which the
recorded parser no longer has, are listed here.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Values = Literal["none", "one", "some", "optional"]

_EARLIER_SWITCHES = (
    "disable_log_requests disable_frontend_multiprocessing disable_async_output_proc enable_reasoning "
    "use_v2_block_manager enable_multimodal_encoder_data_parallel enable_chunked_context"
)
_EARLIER_VALUED = (
    "swap_space task max_seq_len_to_capture num_scheduler_steps guided_decoding_backend preemption_mode "
    "lora_extra_vocab_size max_num_partial_prefills max_long_partial_prefills rope_scaling rope_theta "
    "cuda_graph_sizes num_lookahead_slots tokenizer_pool_size tokenizer_pool_type device"
)


@dataclass(frozen=True, slots=True)
class VllmFlag:
    """One flag of `vllm serve`."""

    name: str
    """The long name with underscores and without dashes, as in a YAML file."""
    values: Values
    """How many values follow it."""
    shorts: tuple[str, ...] = ()
    """Short names, such as `-tp`."""
    aliases: tuple[str, ...] = ()
    """Further long names."""
    negatable: bool = True
    """Whether a switch also has a `--no-` form."""


@functools.cache
def recorded() -> dict[str, VllmFlag]:
    """Every flag by name, those of earlier versions included."""
    flags: dict[str, VllmFlag] = {}
    for row in _document()["flags"]:
        names = [name for name in row["names"] if not name.startswith("--no-")]
        longs = [name for name in names if name.startswith("--")]
        flag = VllmFlag(
            name=_field(longs[0]),
            values="some" if row.get("repeatable") else row["values"],
            shorts=tuple(name for name in names if not name.startswith("--")),
            aliases=tuple(longs[1:]),
            negatable=len(names) < len(row["names"]),
        )
        flags[flag.name] = flag
    for name in _EARLIER_SWITCHES.split():
        flags.setdefault(name, VllmFlag(name, "none"))
    for name in _EARLIER_VALUED.split():
        flags.setdefault(name, VllmFlag(name, "one"))
    return flags


@functools.cache
def known_variables() -> frozenset[str]:
    """The names of the environment variables that vLLM reads."""
    return frozenset(_document()["variables"])


def _field(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(__file__).with_name("vllm_flags.json").read_text(encoding="utf-8"))
    return document
