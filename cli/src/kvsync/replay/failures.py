"""The failures of a replay by kind, with the first message of each, so that one glance shows what went wrong."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MAX_KINDS = 20
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one request failed."""

    message: str
    status: int | None = None
    """HTTP status of the answer; None without one."""


def count_failures(failures: Iterable[Failure]) -> list[dict[str, Any]]:
    """Rows with status, message and count, the most frequent first. Messages that differ in numbers only are one kind.

    With more than MAX_KINDS kinds, the rest is one row.
    """
    first: dict[tuple[int | None, str], Failure] = {}
    counts: dict[tuple[int | None, str], int] = {}
    for failure in failures:
        kind = (failure.status, _NUMBER.sub("#", failure.message))
        first.setdefault(kind, failure)
        counts[kind] = counts.get(kind, 0) + 1
    order = sorted(counts, key=lambda kind: -counts[kind])
    shown = order if len(order) <= MAX_KINDS else order[: MAX_KINDS - 1]
    rows: list[dict[str, Any]] = [
        {"status": first[kind].status, "message": first[kind].message, "count": counts[kind]} for kind in shown
    ]
    if len(shown) < len(order):
        rest = sum(counts[kind] for kind in order[len(shown) :])
        rows.append({"status": None, "message": "other failures", "count": rest})
    return rows


def failure_text(row: dict[str, Any]) -> str:
    """A row as one line."""
    status = f"status {row['status']}: " if row["status"] is not None else ""
    return f"{row['count']:,} x {status}{row['message']}"
