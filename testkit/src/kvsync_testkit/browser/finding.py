"""Finds the Chromium that the machine has. Nothing is downloaded; `make browser` installs Debian's package."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

from kvsync_testkit.errors import BrowserUnavailableError

VARIABLE = "KVSYNC_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> Path:
    """Return the path of the browser that `KVSYNC_CHROMIUM` names, or of the first one on the PATH.

    Raises:
        BrowserUnavailableError: there is no browser, or Python cannot drive one.
    """
    for package in ("playwright", "axe_playwright_python"):
        if find_spec(package) is None:
            raise BrowserUnavailableError("browser", f"{package} is not installed (the extra kvsync-testkit[browser])")
    named = os.environ.get(VARIABLE)
    for name in (named,) if named else NAMES:
        path = shutil.which(name)
        if path is not None:
            return Path(path)
    missing = f"{VARIABLE}={named} is not a program" if named else f"none of {', '.join(NAMES)} is installed"
    raise BrowserUnavailableError("browser", f"{missing} (make browser)")
