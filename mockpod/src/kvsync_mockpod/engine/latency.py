"""Duration of a step: named profiles, custom formulas and jitter. Times are seconds as floats and are never rounded.

The `quadratic` profile and custom formulas add the time of the prefill tokens and that of the decoding sequences. The
hardware profiles are rooflines: a step takes the larger of its arithmetic and its memory traffic. Their figures come
from data sheets and published model configurations; the efficiencies and the overhead are assumptions.
docs/design/scheduler.md lists the sources.
"""

import json
import random
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from kvsync_mockpod.engine.api import LatencyModel, StepLoad
from kvsync_mockpod.engine.config_model import ConfigModel
from kvsync_mockpod.engine.errors import EngineConfigError
from kvsync_mockpod.suggestions import did_you_mean


class NoLatency:
    """Steps take no time."""

    def step_s(self, load: StepLoad) -> float:  # noqa: ARG002
        """Always 0.0."""
        return 0.0


class QuadraticLatency:
    """Prefill is quadratic in the new tokens, decoding in the share of the cache in use.

    prefill ms = 4.21e-7 n^2 + 0.01518 n + 16.50; decode ms = max(1, -25.74 p^2 + 54.01 p + 5.74), where p is the active
    share of the cache, at most 1. Source: `PerfModel::Polynomial` of NVIDIA Dynamo's mock engine (ai-dynamo/dynamo),
    with rounded coefficients.
    """

    def step_s(self, load: StepLoad) -> float:
        """Duration of a step in seconds."""
        n, ms = load.prefill_tokens, 0.0
        if n:
            ms = 4.21e-7 * n * n + 0.01518 * n + 16.50
        if load.decode_seqs:
            p = min(load.active_kv_tokens / load.kv_capacity_tokens, 1.0)
            ms += max(1.0, -25.74 * p * p + 54.01 * p + 5.74)
        return ms / 1000.0


class FormulaLatency(ConfigModel):
    """A custom model: polynomials whose coefficients are given in microseconds."""

    subject = "latency coefficient"

    prefill_us: float = Field(default=0.0, ge=0.0)
    """Per step that contains prompt tokens."""
    prefill_token_us: float = Field(default=0.0, ge=0.0)
    """Per prompt token."""
    prefill_token2_us: float = Field(default=0.0, ge=0.0)
    """Per prompt token of the step, squared."""
    decode_us: float = Field(default=0.0, ge=0.0)
    """Per step that contains decoding sequences."""
    decode_seq_us: float = Field(default=0.0, ge=0.0)
    """Per decoding sequence."""
    kv_token_us: float = Field(default=0.0, ge=0.0)
    """Per token of context that the batch attends to."""
    jitter: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Relative variation: a step takes between 1 - jitter and 1 + jitter of its time."""

    def step_s(self, load: StepLoad) -> float:
        """Duration of a step in seconds."""
        n, us = load.prefill_tokens, self.kv_token_us * load.active_kv_tokens
        if n:
            us += self.prefill_us + self.prefill_token_us * n + self.prefill_token2_us * n * n
        if load.decode_seqs:
            us += self.decode_us + self.decode_seq_us * load.decode_seqs
        return us / 1e6


@dataclass(frozen=True, slots=True)
class RooflineLatency:
    """A dense model on given hardware: a step takes the larger of its arithmetic and its memory traffic."""

    source: str
    flops: float
    """Peak dense 16-bit operations per second of all devices together."""
    bandwidth: float
    """Memory bandwidth of all devices together, in bytes per second."""
    parameters: float
    kv_token_bytes: int
    """2 (K and V) x layers x KV heads x head size x 2 bytes."""
    overhead_s: float = 0.001
    """Kernel launch, sampling and scheduling of one step, in seconds (assumed)."""
    compute_efficiency: float = 0.5
    """Share of the peak operations that prefill reaches (assumed)."""
    memory_efficiency: float = 0.7
    """Share of the bandwidth that decoding reaches (assumed)."""

    def step_s(self, load: StepLoad) -> float:
        """Duration of a step in seconds."""
        tokens = load.prefill_tokens + load.decode_seqs
        if not tokens:
            return 0.0
        compute = 2.0 * self.parameters * tokens / (self.flops * self.compute_efficiency)
        moved = 2.0 * self.parameters + float(load.active_kv_tokens) * self.kv_token_bytes
        return self.overhead_s + max(compute, moved / (self.bandwidth * self.memory_efficiency))


class JitteredLatency:
    """Multiplies the times of another model by factors from a seeded generator, drawing once per step."""

    def __init__(self, model: LatencyModel, jitter: float, seed: int) -> None:
        self._model = model
        self._jitter = jitter
        self._random = random.Random(seed)

    def step_s(self, load: StepLoad) -> float:
        """Duration of a step in seconds, uniformly distributed within `jitter` of the other model's time."""
        return self._model.step_s(load) * (1.0 + self._jitter * (2.0 * self._random.random() - 1.0))


# From data sheets. Those of L4 and Hopper state 16-bit tensor throughput with sparsity (242 and 1,979 TFLOPS); dense
# throughput is half of that.
_L4 = {"flops": 121e12, "bandwidth": 300e9}
_A100 = {"flops": 312e12, "bandwidth": 2.039e12}
_H100 = {"flops": 989e12, "bandwidth": 3.35e12}
_H200 = {"flops": 989e12, "bandwidth": 4.8e12}
_LLAMA_8B = {"parameters": 8.03e9, "kv_token_bytes": 2 * 32 * 8 * 128 * 2}
_LLAMA_70B = {"parameters": 70.6e9, "kv_token_bytes": 2 * 80 * 8 * 128 * 2}


def _shape(source: str, hardware: dict[str, float], model: dict[str, Any], devices: int = 1) -> RooflineLatency:
    return RooflineLatency(source, hardware["flops"] * devices, hardware["bandwidth"] * devices, **model)


PROFILES: dict[str, LatencyModel] = {
    "none": NoLatency(),
    "quadratic": QuadraticLatency(),
    "l4-llama3-8b": _shape("NVIDIA L4 data sheet; Llama 3.1 8B model card", _L4, _LLAMA_8B),
    "a100-llama3-8b": _shape("NVIDIA A100 80GB SXM data sheet; Llama 3.1 8B model card", _A100, _LLAMA_8B),
    "h100-llama3-8b": _shape("NVIDIA H100 SXM data sheet; Llama 3.1 8B model card", _H100, _LLAMA_8B),
    "h200-llama3-8b": _shape("NVIDIA H200 SXM data sheet; Llama 3.1 8B model card", _H200, _LLAMA_8B),
    "h100x4-llama3-70b": _shape("NVIDIA H100 SXM data sheet; Llama 3.1 70B model card", _H100, _LLAMA_70B, 4),
}
"""The named profiles. None of them has jitter."""


def make_latency(spec: str | dict[str, Any] = "none", *, jitter: float = 0.0, seed: int = 0) -> LatencyModel:
    """The model of a named profile, or of a custom formula given as a mapping or as JSON text (see `FormulaLatency`).

    Raises:
        EngineConfigError: unknown profile or coefficient (the message suggests the nearest name), a value out of range,
            or jitter outside [0, 1).
    """
    if isinstance(spec, str) and spec.lstrip().startswith("{"):
        try:
            spec = json.loads(spec)
        except ValueError as error:
            raise EngineConfigError(f"latency formula is not JSON: {error}") from None
    if isinstance(spec, str):
        model = PROFILES.get(spec)
        if model is None:
            hint = did_you_mean(spec, PROFILES)
            raise EngineConfigError(f"unknown latency profile {spec!r} (known: {', '.join(PROFILES)}, or JSON){hint}")
    else:
        model = FormulaLatency.build(**spec)
        jitter = jitter or model.jitter
    if not 0.0 <= jitter < 1.0:
        raise EngineConfigError(f"latency jitter {jitter}: must be at least 0 and below 1")
    return JitteredLatency(model, jitter, seed) if jitter else model
