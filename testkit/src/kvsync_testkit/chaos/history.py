"""The history of a run as JSON lines: what was asked, answered, injected and seen, in seconds since it began."""

import json
import threading
import time
from pathlib import Path


class History:
    """Appends entries to a file and keeps them for the checkers. It is thread-safe."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("w")
        self._lock = threading.Lock()
        self._began = time.monotonic()

    def now(self) -> float:
        """Return the seconds since the history began."""
        return time.monotonic() - self._began

    def add(self, kind: str, **fields: object) -> float:
        """Append an entry and return its time."""
        at = self.now()
        line = json.dumps({"at_s": round(at, 4), "kind": kind, **fields}, default=str)
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
        return at

    def close(self) -> None:
        """Close the file; later entries are dropped."""
        with self._lock:
            self._file.close()
