"""Where a fault may enter: between the publisher, which has numbered a batch, and the bus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for the bus, `delay_s` seconds of virtual time from now."""

    frames: tuple[bytes, ...]
    delay_s: float = 0.0


class FaultHook(Protocol):
    """Decides what becomes of each batch. `number` counts batches from 0 and, unlike sequences, never starts again."""

    def restarts_before(self, number: int) -> bool:
        """Whether the publisher restarts before this batch: its sequence then begins at 0 again."""
        ...

    def on_batch(self, number: int, frames: Sequence[bytes]) -> list[Delivery]:
        """The messages to send now or later in the place of this one: none, one or several."""
        ...


class NoFaults:
    """Lets every batch pass."""

    def restarts_before(self, number: int) -> bool:  # noqa: ARG002 - as the protocol has it
        """Never."""
        return False

    def on_batch(self, number: int, frames: Sequence[bytes]) -> list[Delivery]:  # noqa: ARG002
        """The batch itself."""
        return [Delivery(tuple(frames))]
