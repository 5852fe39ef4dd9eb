"""Merging of new condition states into the conditions of a resource, and the events for their transitions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvsync_operator.reconcile.types import KubeEvent

Status = Literal["True", "False", "Unknown"]
_MAX_MESSAGE = 2048


@dataclass(frozen=True, slots=True)
class ConditionState:
    """The state of a condition, without its transition time and its observed generation."""

    type: str
    status: Status
    reason: str
    message: str


def merge_conditions(
    states: Iterable[ConditionState], shown: Iterable[Mapping[str, Any]], generation: int, now: str
) -> list[dict[str, Any]]:
    """Convert `states` to conditions.

    Args:
        states: The new states, one per condition.
        shown: The present conditions of the resource. A condition whose status does not change keeps its transition
            time.
        generation: Generation of the resource from which the states were derived.
        now: Transition time of the conditions whose status changes, as RFC 3339.
    """
    before = {condition.get("type"): condition for condition in shown}
    result = []
    for state in states:
        old = before.get(state.type)
        changed = old is None or old.get("status") != state.status
        result.append(
            {
                "type": state.type,
                "status": state.status,
                "reason": state.reason,
                "message": state.message[:_MAX_MESSAGE],
                "observedGeneration": generation,
                "lastTransitionTime": now if changed or old is None else old.get("lastTransitionTime", now),
            }
        )
    return result


def transition_events(states: Iterable[ConditionState], shown: Iterable[Mapping[str, Any]]) -> list[KubeEvent]:
    """Return an event for each condition that changes: Normal for an improvement, Warning for a deterioration."""
    before = {condition.get("type"): condition for condition in shown}
    events = []
    for state in states:
        old = before.get(state.type)
        event = _transition_event(state, old.get("status") if old else None, old.get("reason") if old else None)
        if event is not None:
            events.append(event)
    return events


def _transition_event(state: ConditionState, status: str | None, reason: str | None) -> KubeEvent | None:
    match state.type, state.status:
        case "Degraded", "True" if (status, reason) != ("True", state.reason):
            return KubeEvent("Warning", state.reason, state.message)
        case "Degraded", "False" if status == "True":
            return KubeEvent("Normal", "Recovered", "no problem needs attention any more")
        case ("Ready" | "Synced" | "EndpointPicker") as kind, "True" if status != "True":
            return KubeEvent("Normal", kind, state.message)
        case ("Ready" | "Synced" | "EndpointPicker") as kind, "False" | "Unknown" if status == "True":
            return KubeEvent("Warning", f"Not{kind}", state.message)
        case _:
            return None
