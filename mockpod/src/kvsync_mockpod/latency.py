"""Turns `--mock-latency` into latency models, one per rank so that jitter differs between ranks."""

from collections.abc import Callable

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.engine import EngineConfigError, LatencyModel
from kvsync_mockpod.engine.latency import NoLatency, make_latency
from kvsync_mockpod.errors import ConfigError
from kvsync_mockpod.latency_file import read_latency


def build_latency(config: PodConfig) -> Callable[[int], LatencyModel | None]:
    """Return a function from rank to latency model.

    Raises:
        ConfigError: unknown profile or invalid custom model.
    """

    def build(rank: int) -> LatencyModel | None:
        seed = config.text_seed * 1_000_003 + rank
        model = make_latency(formula, jitter=config.mock_latency_jitter, seed=seed)
        return None if isinstance(model, NoLatency) else model

    try:
        formula = read_latency(config.mock_latency)
        build(0)
    except EngineConfigError as error:
        raise ConfigError(f"mock_latency: {config.mock_latency[:80]!r} refused: {error}") from None
    return build
