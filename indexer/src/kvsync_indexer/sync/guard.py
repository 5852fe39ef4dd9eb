"""Remembers what is being applied, so that a payload that ends the process does not end the next one as well."""

from collections.abc import Sequence
from typing import Protocol


class ApplyGuard(Protocol):
    """Told of every payload before the core gets it. A guard that outlives the process can name the last ones."""

    def begin(self, publisher: str, first_seq: int, payloads: Sequence[bytes]) -> None:
        """These consecutive payloads are being applied from now on."""

    def end(self) -> None:
        """They were applied or refused."""

    def is_set_aside(self, publisher: str, seq: int, payload: bytes) -> bool:
        """Return whether an earlier process died while it applied this payload."""

    def applies_singly(self, publisher: str, seq: int) -> bool:
        """Return whether an earlier process died while it applied several payloads, of which this was one."""


class NoGuard:
    """Nothing outlives the process: there is no directory to write to."""

    def begin(self, publisher: str, first_seq: int, payloads: Sequence[bytes]) -> None:
        """See ApplyGuard, for this and the following."""

    def end(self) -> None:
        """Nothing to do."""

    def is_set_aside(self, publisher: str, seq: int, payload: bytes) -> bool:
        """No payload is."""
        del publisher, seq, payload
        return False

    def applies_singly(self, publisher: str, seq: int) -> bool:
        """No payload does."""
        del publisher, seq
        return False
