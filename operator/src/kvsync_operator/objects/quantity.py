"""Kubernetes quantities as numbers, to compare what was asked for with what the API server made of it."""

import re
from fractions import Fraction

__all__ = ["quantity_value", "same_quantity"]

_FORM = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_DECIMAL = {"m": Fraction(1, 1000), "": Fraction(1)} | {
    unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", start=1)
}
_BINARY = {f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
_UNITS = _DECIMAL | _BINARY


def quantity_value(text: str) -> Fraction | None:
    """The number `text` stands for (`"500m"` -> 1/2, `"1Ki"` -> 1024), None when it is no quantity."""
    found = _FORM.match(text)
    return Fraction(found[1]) * _UNITS[found[2] or ""] if found else None


def same_quantity(one: object, other: object) -> bool:
    """Whether both are quantities of the same amount: `"1000m"` and `"1"`, or `1` and `"1"`."""
    first, second = quantity_value(str(one)), quantity_value(str(other))
    return first is not None and first == second
