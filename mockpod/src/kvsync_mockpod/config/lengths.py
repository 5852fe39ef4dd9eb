"""Lengths as `vllm serve` writes them: numbers with a suffix, and `auto` or -1 for as much as fits."""

import re
from typing import Final

AUTO: Final = -1
_SUFFIXED = re.compile(r"(\d+(?:\.\d+)?)([kKmMgGtT])\Z")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4}


def parse_length(value: object) -> object:
    """The number that a text such as `8k` (8,000), `8K` (8,192) or `25.6k` stands for, `AUTO` for `auto` or -1.

    Whatever is not such a text is returned as it is. The rules are those of `human_readable_int_or_auto` in
    vllm/engine/arg_utils.py.

    Raises:
        ValueError: a fraction with a binary suffix.
    """
    if not isinstance(value, str):
        return value
    if value == "auto":
        return AUTO
    found = _SUFFIXED.match(value)
    if found is None:
        return value
    number, suffix = found[1], found[2]
    power = _POWERS[suffix.lower()]
    if suffix.islower():
        return int(float(number) * 1000**power)
    if "." in number:
        raise ValueError(f"{value!r}: a fraction needs a decimal suffix, such as {value.lower()!r}")
    return int(number) * 1024**power
