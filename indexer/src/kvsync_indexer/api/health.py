"""`GET /healthz` and `GET /readyz`. The status is 200 if all is well and 503 otherwise; the body is the same."""

import msgspec


class Health(msgspec.Struct):
    """Whether the process works."""

    ok: bool
    problem: str | None
    """Why the process should be restarted."""


class Readiness(msgspec.Struct):
    """Whether queries get useful answers."""

    ready: bool
    core: str
    """Which index core runs: `python` or `native`."""
    publishers: int
    live: int
    """Publishers in the state `live`."""
    problem: str | None
    """Why the process should be restarted."""
    discovery: dict[str, str]
    """What discovery cannot follow and why, per namespace or pod."""
    reasons: list[str] = []
    """Why the index is not ready, one line each; empty if it is."""
    states: dict[str, int] = {}
    """Number of publishers by state, of the states in which there are any."""
