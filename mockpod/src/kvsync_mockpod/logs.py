"""Logging to stderr: key-value lines on a terminal, JSON otherwise.

If `rich` is installed, structlog imports it for tracebacks on a terminal. That costs 50 modules, 3 MiB and a fifth of a
pod's start time. A pod logs JSON, so structlog is imported here as if `rich` were absent, and all other modules take
their loggers from here.
"""

import logging
import sys
from typing import Any, cast


def _import_without_rich() -> Any:  # noqa: ANN401  (a module)
    hidden = "rich" not in sys.modules and "structlog" not in sys.modules
    if hidden:
        sys.modules["rich"] = cast("Any", None)
    try:
        import structlog
    finally:
        if hidden:
            del sys.modules["rich"]
    return structlog


structlog = _import_without_rich()


def get_logger(name: str) -> Any:  # noqa: ANN401  (structlog's own annotation)
    """The logger of a module."""
    return structlog.get_logger(name)


def configure_logging() -> None:
    """Configure structlog; to be called once, before the first log line."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if terminal else [structlog.processors.format_exc_info]),
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
