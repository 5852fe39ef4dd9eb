"""Comparison of Kubernetes quantities, because the API server may write a quantity differently than it received it."""

import re
from fractions import Fraction

_FORM = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
_DECIMAL = {"m": Fraction(1, 1000), "": Fraction(1)} | {
    unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", start=1)
}
_BINARY = {f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", start=1)}
_UNITS = _DECIMAL | _BINARY


def quantity_value(text: str) -> Fraction | None:
    """Convert a quantity to a number: `"500m"` is 1/2, `"1Ki"` is 1024. Return None if `text` is not a quantity."""
    found = _FORM.match(text)
    return Fraction(found[1]) * _UNITS[found[2] or ""] if found else None


def same_quantity(one: object, other: object) -> bool:
    """Return whether both are quantities of the same amount, such as `"1000m"` and `"1"`, or `1` and `"1"`."""
    first, second = quantity_value(str(one)), quantity_value(str(other))
    return first is not None and first == second
