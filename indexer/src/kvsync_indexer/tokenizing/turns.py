"""Which engine is asked to tokenize a text, and which one is left alone after it was slow. Pure; time is passed in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
PATIENCE_S: Final = 0.1
"""How long an engine may take for a short text until another one is asked as well."""
PATIENCE_PER_BYTE_S: Final = 2e-6
"""Added per byte of the question: tokenizers process one to two megabytes per second."""


def patience_s(size_bytes: int) -> float:
    """How long to wait for an engine before it counts as slow, in seconds."""
    return PATIENCE_S + size_bytes * PATIENCE_PER_BYTE_S


@dataclass(slots=True)
class _Pause:
    until: float
    length_s: float
    trial: bool = False
    """The pause has ended and one question is under way, on which it depends whether the next pause begins."""


class EngineTurns:
    """Engines take turns, except those that were slow or failed a moment ago."""

    def __init__(self) -> None:
        self._pauses: dict[str, _Pause] = {}
        self._turn = 0

    def order(self, urls: Iterable[str], now: float) -> list[str]:
        """The engines that may be asked, in the order in which to ask them. Empty if all of them are left alone."""
        ordered = sorted(urls)
        self._forget(ordered)
        fit = [url for url in ordered if url not in self._pauses or self._pauses[url].until <= now]
        self._turn += 1
        first = self._turn % len(fit) if fit else 0
        turns = fit[first:] + fit[:first]
        tried = self._pauses.get(turns[0]) if turns else None
        if tried is not None:
            tried.until, tried.trial = now + tried.length_s, True
        return turns

    def slow(self, url: str, now: float) -> None:
        """The engine did not answer in time. Each time in a row doubles the pause."""
        known = self._pauses.get(url)
        if known is not None and known.until > now and not known.trial:
            return
        length_s = FIRST_PAUSE_S if known is None else min(known.length_s * 2, LONGEST_PAUSE_S)
        self._pauses[url] = _Pause(now + length_s, length_s)

    def answered(self, url: str) -> None:
        """The engine answered, so it takes its turns again."""
        self._pauses.pop(url, None)

    def _forget(self, known: list[str]) -> None:
        """Keep the table as small as the set of engines, which changes rarely."""
        if len(self._pauses) > 4 * len(known) + 1024:
            self._pauses.clear()
