"""A latency model that keeps what it was told, so that a test can assert the load and not only the time it led to."""

from dataclasses import replace

from kvsync_mockpod.engine import LatencyModel, StepLoad


class RecordingLatency:
    """Takes its durations from another model, or from a constant, and records the load of every attempt at a step."""

    def __init__(self, model: LatencyModel | float = 0.001) -> None:
        self._model = model
        self.loads: list[StepLoad] = []
        """Copies of the loads, in order; an attempt of which nothing was scheduled has none."""

    def step_s(self, load: StepLoad) -> float:
        """Duration of the step in seconds."""
        self.loads.append(replace(load))
        return self._model if isinstance(self._model, float) else self._model.step_s(load)
