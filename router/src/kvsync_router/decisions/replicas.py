"""Which of several replicas of an index a router asks: the nearest healthy one, without changing its mind often."""

from collections.abc import Callable, Iterator
from typing import Final

NEARER: Final = 2.0
"""Another replica must answer this many times as fast before it is preferred."""
MARGIN_S: Final = 0.001
"""It must also save at least this much time, because smaller differences are noise."""
ROUNDS: Final = 5
"""It must have done so in this many rounds of probes in a row."""
PAUSE_S: Final = 1.0
"""How long a replica that failed is asked last. The time doubles with every further failure."""
PAUSE_MAX_S: Final = 30.0
_WEIGHT: Final = 0.3
"""Weight of the newest probe in the latency."""


class _Replica:
    __slots__ = ("latency_s", "out_until", "pause_s", "ready")

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.ready = True
        self.out_until = float("-inf")
        self.pause_s = PAUSE_S


class ReplicaChoice:
    """Orders replicas, which are called by their number from 0 on."""

    def __init__(
        self, count: int, clock: Callable[[], float], preferred_changed: Callable[[int], None] = lambda _at: None
    ) -> None:
        """`preferred_changed` is called with the replica that is asked first from now on."""
        self._replicas = [_Replica() for _ in range(count)]
        self._clock = clock
        self._changed = preferred_changed
        self._preferred = 0
        self._candidate = 0
        self._rounds = 0
        self._measured = False

    def order(self) -> list[int]:
        """Every replica, in the order in which they are to be asked; those that are not healthy come last."""
        return sorted(range(len(self._replicas)), key=lambda at: (not self._healthy(at), *self._distance(at)))

    def failed(self, at: int) -> None:
        """A question was not answered in time. Another replica is preferred until this one is nearer again."""
        replica = self._replicas[at]
        now = self._clock()
        if now < replica.out_until:
            return
        replica.out_until = now + replica.pause_s
        replica.pause_s = min(2 * replica.pause_s, PAUSE_MAX_S)
        self._leave_unhealthy()

    def answered(self, at: int) -> None:
        """A question was answered."""
        self._replicas[at].pause_s = PAUSE_S

    def probed(self, at: int, latency_s: float | None) -> None:
        """A probe took this long; None if the replica did not answer in time or is not ready."""
        replica = self._replicas[at]
        replica.ready = latency_s is not None
        if latency_s is not None:
            before = replica.latency_s
            replica.latency_s = latency_s if before is None else before + _WEIGHT * (latency_s - before)

    def settle(self) -> None:
        """A round of probes is over: change to another replica if it is lastingly nearer."""
        self._leave_unhealthy()
        nearest = next(self._healthy_by_latency(), None)
        if nearest is None:
            return
        if not self._measured:
            self._measured = True
            self._prefer(nearest)
        elif not self._much_nearer(nearest):
            self._rounds = 0
        else:
            self._rounds = self._rounds + 1 if nearest == self._candidate else 1
            self._candidate = nearest
            if self._rounds >= ROUNDS:
                self._prefer(nearest)

    def _healthy(self, at: int) -> bool:
        replica = self._replicas[at]
        return replica.ready and self._clock() >= replica.out_until

    def _latency(self, at: int) -> float:
        latency = self._replicas[at].latency_s
        return float("inf") if latency is None else latency

    def _distance(self, at: int) -> tuple[bool, float, int]:
        return at != self._preferred, self._latency(at), at

    def _healthy_by_latency(self) -> Iterator[int]:
        healthy = [at for at in range(len(self._replicas)) if self._healthy(at)]
        return iter(sorted(healthy, key=lambda at: (self._latency(at), at)))

    def _leave_unhealthy(self) -> None:
        if not self._healthy(self._preferred):
            nearest = next(self._healthy_by_latency(), None)
            if nearest is not None:
                self._prefer(nearest)

    def _much_nearer(self, at: int) -> bool:
        mine, other = self._latency(self._preferred), self._latency(at)
        return other * NEARER < mine and mine - other > MARGIN_S

    def _prefer(self, at: int) -> None:
        self._rounds = 0
        if at != self._preferred:
            self._preferred = at
            self._changed(at)
