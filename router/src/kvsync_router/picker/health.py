"""The gRPC health service: `liveness`, `readiness`, and the name of the processor, which means `readiness`."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvsync_router.picker.processor import SERVICE

WATCH_S: Final = 0.5
"""How often the state is compared for a client that watches it."""
_LIVE: Final = ("", "liveness")
_READY: Final = ("readiness", SERVICE)

_Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
    """Answers from the state at the moment of the question."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        """`ready`: whether a request could be placed."""
        self._ready = ready
        self.leaving = False
        """The process ends; no new streams are wanted."""

    def _status(self, service: str) -> Any:  # noqa: ANN401
        if service in _LIVE:
            return _Response.SERVING
        if service in _READY:
            return _Response.SERVING if self._ready() and not self.leaving else _Response.NOT_SERVING
        return _Response.SERVICE_UNKNOWN

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        """The state of a service; NOT_FOUND for one that does not exist."""
        status = self._status(request.service)
        if status == _Response.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _Response(status=status)

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: ANN401, N802
        """The state of a service, and every change of it."""
        last = None
        while not self.leaving or last is None:
            status = self._status(request.service)
            if status != last:
                await context.write(_Response(status=status))
                last = status
            await asyncio.sleep(WATCH_S)
