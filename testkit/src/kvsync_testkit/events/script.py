"""Faults at chosen batches, written down before the test runs."""

from collections.abc import Sequence
from typing import Self

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.events.hooks import Delivery


class FaultScript:
    """A fault hook that does what it is told, once for each batch number named.

    Numbers count batches from 0. They equal sequence numbers until a restart. A batch has at most one fault, apart from
    a restart before it.
    """

    def __init__(self) -> None:
        self._faults: dict[int, str] = {}
        self._delays: dict[int, float] = {}
        self._restarts: set[int] = set()
        self._held: list[Delivery] = []

    @property
    def held(self) -> int:
        """Batches that wait to be overtaken by a later one, which has not come yet."""
        return len(self._held)

    def lose(self, *numbers: int) -> Self:
        """These batches never reach the bus; their sequence numbers are used up."""
        return self._plan("lose", numbers)

    def duplicate(self, *numbers: int) -> Self:
        """These batches are sent twice."""
        return self._plan("duplicate", numbers)

    def reorder(self, *numbers: int) -> Self:
        """Each of these batches is sent right after the next batch that is not lost."""
        return self._plan("reorder", numbers)

    def delay(self, *numbers: int, seconds: float) -> Self:
        """These batches are sent after `seconds` of virtual time; later batches overtake them."""
        self._delays.update(dict.fromkeys(numbers, seconds))
        return self._plan("delay", numbers)

    def corrupt(self, *numbers: int) -> Self:
        """The first byte of these payloads is inverted, so that no decoder takes them for a batch."""
        return self._plan("corrupt", numbers)

    def restart(self, *numbers: int) -> Self:
        """The publisher restarts before these batches and numbers them from 0 again, unannounced."""
        self._restarts.update(numbers)
        return self

    def restarts_before(self, number: int) -> bool:
        """As `FaultHook`."""
        return number in self._restarts

    def on_batch(self, number: int, frames: Sequence[bytes]) -> list[Delivery]:
        """As `FaultHook`."""
        intact = Delivery(tuple(frames))
        match self._faults.get(number):
            case "lose":
                return []
            case "reorder":
                self._held.append(intact)
                return []
            case "duplicate":
                now = [intact, intact]
            case "delay":
                now = [Delivery(intact.frames, self._delays[number])]
            case "corrupt":
                topic, seq, payload = frames
                now = [Delivery((topic, seq, bytes((payload[0] ^ 0xFF,)) + payload[1:]))]
            case _:
                now = [intact]
        held, self._held = self._held, []
        return [*now, *held]

    def _plan(self, fault: str, numbers: Sequence[int]) -> Self:
        for number in numbers:
            if self._faults.setdefault(number, fault) != fault:
                raise ConfigurationError(f"batch {number}: {fault} contradicts {self._faults[number]}")
        return self
