"""The result of a check."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check.

    Args:
        level: `ok`, `problem`, or `note` for what is no problem or could not be checked.
        what: What was checked.
        detail: What was found.
        next_step: A command or an instruction that helps; empty if nothing has to be done.
    """

    level: Level
    what: str
    detail: str
    next_step: str = ""
