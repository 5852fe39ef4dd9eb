"""Conditions: made, compared with what the resource shows, and announced when they turn."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvsync_operator.reconcile.types import Announcement

__all__ = ["Verdict", "announce", "merge_conditions"]

Status = Literal["True", "False", "Unknown"]
_MAX_MESSAGE = 2048


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its times."""

    type: str
    status: Status
    reason: str
    message: str


def merge_conditions(
    verdicts: Iterable[Verdict], shown: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """`verdicts` as conditions; the transition time stays where the status did not turn."""
    before = {condition.get("type"): condition for condition in shown}
    result = []
    for verdict in verdicts:
        old = before.get(verdict.type)
        turned = old is None or old.get("status") != verdict.status
        result.append(
            {
                "type": verdict.type,
                "status": verdict.status,
                "reason": verdict.reason,
                "message": verdict.message[:_MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": now if turned or old is None else old.get("lastTransitionTime", now),
            }
        )
    return result


def announce(verdicts: Iterable[Verdict], shown: Iterable[Mapping[str, Any]]) -> list[Announcement]:
    """Events for the conditions that turned: good news Normal, bad news Warning, nothing for the first Unknown."""
    before = {condition.get("type"): condition for condition in shown}
    events = []
    for verdict in verdicts:
        old = before.get(verdict.type)
        event = _turn(verdict, old.get("status") if old else None, old.get("reason") if old else None)
        if event is not None:
            events.append(event)
    return events


def _turn(verdict: Verdict, status: str | None, reason: str | None) -> Announcement | None:
    match verdict.type, verdict.status:
        case "Degraded", "True" if (status, reason) != ("True", verdict.reason):
            return Announcement("Warning", verdict.reason, verdict.message)
        case "Degraded", "False" if status == "True":
            return Announcement("Normal", "Recovered", "nothing needs attention any more")
        case ("Ready" | "Synced") as kind, "True" if status != "True":
            return Announcement("Normal", kind, verdict.message)
        case ("Ready" | "Synced") as kind, "False" | "Unknown" if status == "True":
            return Announcement("Warning", f"Not{kind}", verdict.message)
        case _:
            return None
