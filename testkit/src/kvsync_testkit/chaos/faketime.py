"""The wall clock of one process, moved by libfaketime; its monotonic clock stays."""

from pathlib import Path

from kvsync_testkit.chaos.errors import CapabilityError


def find_faketime() -> str:
    """Return the library that changes the clock of a process; raise CapabilityError if it is not installed."""
    found = [
        *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
        *Path("/usr/lib/faketime").glob("libfaketimeMT.so.1"),
    ]
    if not found:
        raise CapabilityError("libfaketime is not installed (Debian package libfaketime)")
    return str(found[0])


class ProcessClock:
    """A file from which a process reads how far its wall clock is ahead."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_ahead(0)

    def set_ahead(self, seconds: int) -> None:
        """Move the clock; the process notices at its next look."""
        self._file.write_text(f"+{seconds}")

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which the process must be started; raise CapabilityError if that cannot be done."""
        return {
            "LD_PRELOAD": find_faketime(), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
        }  # fmt: skip
