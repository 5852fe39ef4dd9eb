"""The logging set-up that the commands of the index and the router share.

A log line never grows with what a client sent: values are cut to `MAX_TEXT` characters, and a traceback shows its last
`MAX_FRAMES` frames without local variables, which may hold prompts, cache salts and keys.
"""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

MAX_TEXT = 500
MAX_FRAMES = 20

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def brief_traceback(info: ExcInfo) -> str:
    """The frames of an exception and its message, both cut to the limits of this module."""
    kind, error, where = info
    frames = traceback.format_tb(where, limit=-MAX_FRAMES)
    return "".join(frames) + f"{kind.__name__}: {str(error)[:MAX_TEXT]}"


def _format_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    info = event.pop("exc_info", None)
    if isinstance(info, BaseException):
        info = (type(info), info, info.__traceback__)
    elif info and not isinstance(info, tuple):
        info = sys.exc_info()
    if info and info[0] is not None:
        event["exception"] = brief_traceback(info)
    return event


def _shorten(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            event[name] = value[:MAX_TEXT] + "…"
    return event


class _BriefFormatter(logging.Formatter):
    """For libraries that use `logging`, such as the HTTP server."""

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802
        return brief_traceback(ei)


def configure_logging(level: str) -> None:
    """Log key-value lines to stderr: in colour on a terminal, as JSON elsewhere."""
    pretty = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _shorten,
            _format_exception,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_BriefFormatter("%(levelname)s:%(name)s:%(message).500s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
