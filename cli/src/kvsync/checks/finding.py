"""One result of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what it is, and what to do about it."""

    level: Level
    what: str
    detail: str
    next_step: str = ""
