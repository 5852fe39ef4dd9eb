"""One structured line per request, with the decision. It holds no text of a prompt, no salt, no key and no session."""

from dataclasses import dataclass

import structlog

from kvsync_router.decisions.picking import RoutingDecision

_log = structlog.get_logger("kvsync_router.access")


@dataclass(slots=True)
class Course:
    """What happened to one request so far. Times are monotonic seconds."""

    began_at: float
    first_byte_at: float | None = None
    attempts: int = 0
    decision: RoutingDecision | None = None


def log_request(
    course: Course, now: float, *, method: str, path: str, status: int, outcome: str, trace_id: str | None
) -> None:
    """Write the line."""
    decision = course.decision
    fields: dict[str, object] = {}
    if decision is not None:
        record = decision.record
        fields = {
            "model": record.model,
            "policy": decision.policy.name,
            "endpoint": record.chosen,
            "prompt_tokens": decision.prompt_tokens,
            "predicted_tokens": record.predicted_tokens,
            "available_tokens": record.available_tokens,
            "reported_tokens": record.reported_tokens,
        }
        if decision.fallback is not None:
            fields["fallback"] = decision.fallback
        if decision.unknown is not None:
            fields["unknown"] = decision.unknown
    if course.first_byte_at is not None:
        fields["first_byte_ms"] = _ms(course.first_byte_at - course.began_at)
    _log.info(
        "request_served",
        method=method,
        path=path,
        status=status,
        outcome=outcome,
        attempts=course.attempts,
        duration_ms=_ms(now - course.began_at),
        trace_id=trace_id,
        **fields,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
