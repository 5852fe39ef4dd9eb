"""What the picker serves over HTTP: its metrics and its health."""

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from kvsync_router.picker.server import PickerServer
from kvsync_router.routing import Routing


def status_app(routing: Routing, server: PickerServer) -> Starlette:
    """The ASGI application of the metrics port."""

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(routing.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(_request: Request) -> Response:
        ready = server.ready()
        return Response("ok\n" if ready else "no endpoint\n", 200 if ready else 503, media_type="text/plain")

    return Starlette(
        routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)],
    )
