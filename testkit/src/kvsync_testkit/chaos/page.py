"""report.html."""

from pathlib import Path
from typing import Any


def write_page(document: dict[str, Any], path: Path) -> None:
    """Write the page."""
    del document, path
