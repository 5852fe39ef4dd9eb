"""The settings of a demo, and the sizes it derives from the trace."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvsync.errors import UsageProblemError
from kvsync_workload.ideal import Ideal, compute_ideal
from kvsync_workload.prompts import Prompt, make_prompts
from kvsync_workload.trace import TraceRequest, read_trace

SCALE = 32
"""Lengths are divided by this factor, so that a 512-token block of the trace becomes a 16-token engine block."""
REPLAY_S = 10.0
"""The duration of each replay if no speed is given."""
LATENCY = {
    "prefillBaseUs": 16_500,
    "prefillPerTokenNs": 15_180 * SCALE,
    "prefillPerTokenSquaredPs": 421 * SCALE * SCALE,
    "decodeBaseUs": 5_740,
}
"""The `quadratic` latency profile with an empty cache, where one prompt token represents SCALE tokens of the trace."""
SLOWEST_SCALE, FASTEST_SCALE = 9999.0, 1e-6
"""The range of the field `timeScale` of a MockEngine."""
BLOCK_SIZE = 16
CACHE_SHARE = 0.75
"""The share of the distinct blocks that all engines hold together: enough for reuse, and few enough for evictions."""
ENGINE_BUSY_S = 2.5
"""The longest time that an engine may need to compute all of its prompts."""


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """The flags of `kvsync demo`."""

    trace: Path
    engines: int = 3
    requests: int = 1000
    seed: int = 0
    speed: float | None = None
    policies: tuple[str, ...] = ("round_robin", "kv")
    blocks: int | None = None
    host_blocks: int = 0
    out: Path = Path("out/demo")
    restart: bool = True
    keep: bool = False
    core: str = "auto"


@dataclass(frozen=True, slots=True)
class Workload:
    """The requests of a demo and everything derived from them, before any process is started."""

    prompts: tuple[Prompt, ...]
    reordered: int
    """How many requests of the trace were out of time order."""
    ideal: Ideal
    speed: float
    time_scale: float
    latency: Mapping[str, int]
    blocks: int
    max_model_len: int


def prepare(settings: DemoSettings) -> Workload:
    """Read the trace and choose the sizes of the demo.

    Raises:
        TraceError: the trace cannot be read.
        UsageProblemError: the settings do not fit the trace.
    """
    trace = read_trace(settings.trace, settings.requests)
    requests = trace.requests
    prompts = make_prompts(requests, SCALE)
    ideal = compute_ideal(requests, BLOCK_SIZE, SCALE)
    longest = max(len(prompt.token_ids) + prompt.output_tokens for prompt in prompts)
    max_model_len = math.ceil((longest + 1) / BLOCK_SIZE) * BLOCK_SIZE
    speed = settings.speed or choose_speed(requests)
    return Workload(
        prompts=tuple(prompts),
        reordered=trace.reordered,
        ideal=ideal,
        speed=speed,
        time_scale=choose_time_scale(requests, speed, settings.engines),
        latency=LATENCY,
        blocks=_blocks(settings, ideal, max_model_len),
        max_model_len=max_model_len,
    )


def _blocks(settings: DemoSettings, ideal: Ideal, max_model_len: int) -> int:
    least = max_model_len // BLOCK_SIZE + 1
    if settings.blocks is not None:
        if settings.blocks < least:
            raise UsageProblemError(f"--blocks {settings.blocks}: the longest request of the trace needs {least}")
        return settings.blocks
    return max(math.ceil(CACHE_SHARE * ideal.distinct_blocks / settings.engines), 2 * least)


def choose_speed(requests: Sequence[TraceRequest]) -> float:
    """Return the speed at which the requests take REPLAY_S seconds, and at least 1."""
    return max(requests[-1].arrival_s / REPLAY_S, 1.0)


def prefill_s(tokens: int) -> float:
    """Return the seconds that the `quadratic` profile needs for `tokens` new tokens of the original trace."""
    return (4.21e-7 * tokens * tokens + 0.01518 * tokens + 16.5) / 1000


def choose_time_scale(requests: Sequence[TraceRequest], speed: float, engines: int) -> float:
    """Return the factor on the computing time of engines.

    It is that of the replay, or smaller if an engine would otherwise need more than ENGINE_BUSY_S.
    """
    busy_s = sum(prefill_s(request.input_tokens) for request in requests) / engines
    return min(max(min(1.0 / speed, ENGINE_BUSY_S / busy_s), FASTEST_SCALE), SLOWEST_SCALE)
