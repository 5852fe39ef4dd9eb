"""Scales of axes: where values lie, which of them get a tick, and how numbers are written."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Format: TypeAlias = Callable[[float], str]

TICKS = 5
"""Ticks on an axis, at most about one more. So many labels fit side by side on a phone."""


def plain(value: float) -> str:
    """Write a number with at most three significant decimals and with thousands separated."""
    if value and abs(value) < 1:
        return f"{value:.3g}"
    text = f"{value:,.2f}"
    return text.rstrip("0").rstrip(".")


def percent(value: float) -> str:
    """Write a share as a percentage."""
    return f"{plain(round(value * 100, 1))} %"


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; values outside the axis lie on its ends."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values from `low` to `high`."""
        step = round_step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [round(number * step, 12) for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def round_step(span: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that divides `span` into at most TICKS parts."""
    least = span / TICKS
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def scale_from_zero(values: Iterable[float], top: float | None = None) -> Scale:
    """Return a scale from 0 to `top`, or to the next round value above all values."""
    highest = max(values, default=0.0)
    if top is not None:
        return Scale(0.0, top)
    if highest <= 0:
        return Scale(0.0, 1.0)
    step = round_step(highest)
    return Scale(0.0, step * math.ceil(highest / step - 1e-9))


def scale_around(values: Sequence[float]) -> Scale:
    """Return a scale that holds all values with some room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return Scale(low - room, high + room)
