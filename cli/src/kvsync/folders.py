"""Output folders: a command that will write many files checks first that it can."""

import contextlib
import tempfile
from pathlib import Path

from kvsync.errors import UsageProblemError


def check_folder(folder: Path, option: str) -> None:
    """Check that files can be written in the folder, which may not exist yet; nothing is left behind.

    Raises UsageProblemError, which names the option and the reason.
    """
    made: list[Path] = []
    try:
        for parent in (*reversed(folder.parents), folder):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except NotADirectoryError:
        raise UsageProblemError(f"{option} {folder}: is a file, or below a file") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageProblemError(f"{option} {folder}: cannot be written: {reason}") from None
    finally:
        for parent in reversed(made):
            with contextlib.suppress(OSError):
                parent.rmdir()
