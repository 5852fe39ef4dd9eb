"""The parts of a scripted schedule."""

from dataclasses import dataclass, field

from kvsync_mockpod.engine import EngineConfig, Request


@dataclass(slots=True)
class Control:
    """A `reset_prefix_cache`, `pause` or `resume` before step `step`."""

    step: int
    kind: str = "reset_prefix_cache"
    reset_running_requests: bool = False
    level: str | None = None
    """Level of a pause: `new` or `all`."""


@dataclass(slots=True)
class ScriptedRequest:
    """A request with its scripted output and the times of its arrival and abort."""

    request: Request
    arrival_step: int
    eos_at: int | None = None
    output_token_ids: list[int] | None = None
    abort_at_step: int | None = None
    abort_during_step: int | None = None


@dataclass(slots=True)
class Scenario:
    """One schedule: the engine, the requests and the controls."""

    config: EngineConfig
    requests: list[ScriptedRequest] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
