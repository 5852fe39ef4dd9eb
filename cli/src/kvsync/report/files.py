"""Writes reports atomically, so that a reader never finds half a file."""

import os
import tempfile
from pathlib import Path

from kvsync.errors import UsageProblemError


def write_whole(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path`, then move it there.

    Raises:
        UsageProblemError: the file or its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        part = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageProblemError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from None
