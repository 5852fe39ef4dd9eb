"""The picker as a server: its routing, its gRPC ports, and an orderly end."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any, Final

import grpc
import structlog
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import add_ExternalProcessorServicer_to_server
from grpc_health.v1 import health_pb2_grpc

from kvsync_indexer.errors import ListenError
from kvsync_router.decisions.subset import join_address
from kvsync_router.picker.book import AddressBook
from kvsync_router.picker.health import Health
from kvsync_router.picker.placing import Placer
from kvsync_router.picker.processor import Processor
from kvsync_router.routing import Routing

DRAIN_S: Final = 20.0
"""Seconds that open streams get to finish when the picker ends. Kubernetes gives a pod 30 s in all."""
MESSAGE_BYTES: Final = (64 << 20) + (1 << 20)
"""Longest message of a gateway. A buffered body is one message, so this limits buffered bodies."""

_log = structlog.get_logger("kvsync_router.picker")


class PickerServer:
    """Serves the processor and its health, on sockets that are bound already.

    gRPC binds its ports itself, so the sockets only reserve them until it does.
    """

    def __init__(
        self,
        routing: Routing,
        bound: socket.socket,
        health: socket.socket | None,
        *,
        credentials: Any = None,  # noqa: ANN401
        single_address: bool = False,
    ) -> None:
        """Without `credentials` the processor is served without TLS, as its health always is on its own port."""
        self._routing = routing
        self._credentials = credentials
        self._bound = bound
        self._health_bound = health
        self._book = AddressBook(routing.table.all)
        self._placer = Placer(routing, self._book.address, single_address=single_address)
        self._health = Health(self.ready)
        self._stopping = asyncio.Event()
        self._hurried = asyncio.Event()
        self.processor = Processor(self._placer)
        self.started = False

    def ready(self) -> bool:
        """Whether the ports are open, and an endpoint is in the rotation that a gateway can reach."""
        return self.started and any(self._book.address(endpoint) for endpoint in self._routing.table.rotation(None))

    async def serve(self) -> None:
        """Serve until `stop` is called; open streams get `DRAIN_S` seconds. Raises ListenError."""
        await self._routing.start()
        await self._book.start()
        try:
            servers = await self._open()
            self.started = True
            await self._stopping.wait()
            self._health.leaving = True
            await self._close(servers)
        finally:
            self._close_sockets()
            await self._book.stop()
            await self._routing.stop()

    def stop(self, *, at_once: bool) -> None:
        """End `serve`."""
        self._stopping.set()
        if at_once:
            self._hurried.set()

    async def _open(self) -> list[Any]:
        main = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", MESSAGE_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES),
                ("grpc.max_metadata_size", 64 << 10),
            ]
        )
        add_ExternalProcessorServicer_to_server(self.processor, main)
        servers = [(main, self._bound, self._credentials)]
        if self._health_bound is not None:
            servers.append((grpc.aio.server(options=[("grpc.so_reuseport", 0)]), self._health_bound, None))
        for server, bound, credentials in servers:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            address = join_address(*bound.getsockname()[:2])
            bound.close()
            try:
                if credentials is None:
                    server.add_insecure_port(address)
                else:
                    server.add_secure_port(address, credentials)
            except RuntimeError as error:
                raise ListenError(f"cannot listen on {address}: {error}") from None
            await server.start()
            _log.info("picker_listens", address=address, secure=credentials is not None)
        return [server for server, _, _ in servers]

    async def _close(self, servers: Sequence[Any]) -> None:
        draining = asyncio.ensure_future(asyncio.gather(*(server.stop(DRAIN_S) for server in servers)))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait((draining, hurried), return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done():
            await asyncio.gather(*(server.stop(0) for server in servers))
        await draining

    def _close_sockets(self) -> None:
        self._bound.close()
        if self._health_bound is not None:
            self._health_bound.close()
