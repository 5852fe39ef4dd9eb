"""Commands of the operating system, run with a time limit and with their message kept for errors."""

import shutil
import subprocess
from collections.abc import Sequence

from kvsync_testkit.chaos.errors import CapabilityError, ChaosError


def run(command: Sequence[str], *, timeout_s: float = 20.0, check: bool = True) -> str:
    """Run a command and return its standard output.

    Raises:
        ChaosError: it failed and `check` is set, or it did not end in time.
    """
    try:
        done = subprocess.run(list(command), capture_output=True, text=True, timeout=timeout_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ChaosError(f"{' '.join(command)}: {error}") from None
    if check and done.returncode != 0:
        raise ChaosError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def require_programs(*names: str) -> None:
    """Raise CapabilityError if a program is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise CapabilityError(f"not installed: {', '.join(missing)}")
