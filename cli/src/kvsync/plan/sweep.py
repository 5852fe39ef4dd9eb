"""What a sweep varies: every combination of the given values is one configuration, and each seed one run of it."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from kvsync.replay.offline import OfflineSettings
from kvsync_router.decisions.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of a sweep, without the seed. Block counts are per engine."""

    policy: str
    engines: int
    blocks: int
    host_blocks: int
    disk_blocks: int
    prefill_weight: float
    """Of the `kv` policy only, as `decode_weight`."""
    decode_weight: float

    def describe(self) -> dict[str, Any]:
        """The fields as JSON values; weights only where they have an effect."""
        fields = asdict(self)
        if self.policy != "kv":
            del fields["prefill_weight"], fields["decode_weight"]
        return fields


@dataclass(frozen=True, slots=True)
class Fixed:
    """What all configurations share."""

    block_size: int = 16
    max_batched_tokens: int = 8192
    latency: str = "quadratic"

    def settings(self, configuration: Configuration, seed: int) -> OfflineSettings:
        """The settings of one replay."""
        return OfflineSettings(
            workers=configuration.engines,
            policy=configuration.policy,
            seed=seed,
            blocks=configuration.blocks,
            block_size=self.block_size,
            max_batched_tokens=self.max_batched_tokens,
            latency=self.latency,
            host_blocks=configuration.host_blocks,
            disk_blocks=configuration.disk_blocks,
            prefill_weight=configuration.prefill_weight,
            decode_weight=configuration.decode_weight,
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """The values of each dimension."""

    policies: Sequence[str] = ("round_robin", "kv")
    engines: Sequence[int] = (2, 4, 8)
    blocks: Sequence[int] = (16_384,)
    host_blocks: Sequence[int] = (0,)
    disk_blocks: Sequence[int] = (0,)
    prefill_weights: Sequence[float] = (DEFAULT_PREFILL_WEIGHT,)
    decode_weights: Sequence[float] = (DEFAULT_DECODE_WEIGHT,)
    seeds: Sequence[int] = (0,)

    def configurations(self) -> list[Configuration]:
        """Every combination once: weights vary only for `kv`, and a disk needs a host tier."""
        return list(dict.fromkeys(self._all()))

    def _all(self) -> Iterator[Configuration]:
        for policy, engines, blocks, host, disk, prefill, decode in product(
            self.policies,
            self.engines,
            self.blocks,
            self.host_blocks,
            self.disk_blocks,
            self.prefill_weights,
            self.decode_weights,
        ):
            weights = (prefill, decode) if policy == "kv" else (DEFAULT_PREFILL_WEIGHT, DEFAULT_DECODE_WEIGHT)
            yield Configuration(policy, engines, blocks, host, disk if host else 0, *weights)
