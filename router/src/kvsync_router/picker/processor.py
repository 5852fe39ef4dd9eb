"""The gRPC side of an exchange: reads messages, lets requests be placed, and writes the answers."""

from typing import Any, Final

import grpc
import structlog
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorServicer

from kvsync_router.errors import PickerProtocolError, RequestRefusedError
from kvsync_router.picker.bodies import BodyBudget
from kvsync_router.picker.exchange import Exchange
from kvsync_router.picker.placing import Placer
from kvsync_router.proxy.proxy import HEADER_POLICY

SERVICE: Final = "envoy.service.ext_proc.v3.ExternalProcessor"
HELD_BYTES: Final = 256 << 20
"""Bytes of bodies that may wait for their end in all streams. Beyond that, requests are placed without their prompt."""

_log = structlog.get_logger("kvsync_router.picker")


class Processor(ExternalProcessorServicer):
    """Serves streams. Nothing that happens in one of them reaches the others."""

    def __init__(self, placer: Placer, held_bytes: int = HELD_BYTES) -> None:
        self._placer = placer
        self._config = placer.routing.config
        self._budget = BodyBudget(held_bytes)
        self.streams = 0
        """Streams that are open."""

    async def Process(self, _requests: Any, context: Any) -> None:  # noqa: ANN401, N802
        """Serve one stream, which is one request of a client."""
        exchange = Exchange(self._config.max_body_bytes, self._budget)
        self.streams += 1
        try:
            await self._serve(exchange, context)
        except PickerProtocolError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            self.streams -= 1
            exchange.end()

    async def _serve(self, exchange: Exchange, context: Any) -> None:  # noqa: ANN401
        while not exchange.closed:
            message = await context.read()
            if message is grpc.aio.EOF:
                return
            try:
                answers = exchange.receive(message)
            except RequestRefusedError as error:
                answers = self._refuse(exchange, error)
            for answer in answers:
                await context.write(answer)
            if exchange.question is not None:
                for answer in await self._place(exchange):
                    await context.write(answer)

    async def _place(self, exchange: Exchange) -> Any:  # noqa: ANN401
        question = exchange.question
        if question is None:
            return []
        try:
            return exchange.placed(await self._placer.place(question))
        except RequestRefusedError as error:
            return self._refuse(exchange, error)
        except Exception as error:  # noqa: BLE001  a defect must not cost the client more than an error
            _log.exception("request_failed", problem=f"{type(error).__name__}: {error}")
            refused = RequestRefusedError(502, "the request could not be placed", "bad_gateway", code="502")
            return self._refuse(exchange, refused, "failed")

    def _refuse(self, exchange: Exchange, error: RequestRefusedError, outcome: str | None = None) -> Any:  # noqa: ANN401
        policy = self._config.policy
        outcome = outcome or ("failed" if error.status == 503 else "refused")
        self._placer.routing.metrics.requests.labels(policy, outcome).inc()
        headers: dict[str, str] = {HEADER_POLICY.decode(): policy}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(error.retry_after_s)
        return exchange.refused(error, headers)
