"""From `--mock-latency` to the engine's latency model, one a rank so that jitter differs by rank."""

from collections.abc import Callable

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.engine import LatencyModel
from kvsync_mockpod.errors import ConfigError

__all__ = ["build_latency"]


def build_latency(config: PodConfig) -> Callable[[int], LatencyModel | None]:
    """A maker of latency models by rank. Raises `ConfigError` for an unknown profile or a bad custom model."""
    if config.mock_latency == "none":
        return lambda _rank: None
    msg = f"mock_latency: {config.mock_latency!r} is not known; allowed: none"
    raise ConfigError(msg)
