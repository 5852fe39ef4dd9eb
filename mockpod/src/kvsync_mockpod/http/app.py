"""The pod as an ASGI application: a table of exact paths, and one place where errors become responses."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from kvsync_mockpod.http.asgi import ClientDisconnectedError, Receive, Request, Response, Send, json_response
from kvsync_mockpod.http.errors import HttpError, not_found
from kvsync_mockpod.http.faults import apply_http_faults
from kvsync_mockpod.http.messages import anthropic_error
from kvsync_mockpod.http.routes import Route, build_routes
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.pod import Pod

_log = get_logger(__name__)
Handler = Callable[[Pod, Request], Awaitable[Response | None]]


class Application:
    """Serves one pod."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        self._exact: dict[tuple[str, str], Route] = {}
        self._prefixed: dict[tuple[str, str], Route] = {}
        self._methods: dict[str, list[str]] = {}
        self._routes = build_routes(pod)
        if not pod.config.disable_fastapi_docs:
            self._routes.append(Route("GET", "/openapi.json", self._openapi, "This description"))
        for route in self._routes:
            path, braces, _ = route.path.partition("{")
            table = self._prefixed if braces else self._exact
            table[route.method, path] = route
            if not braces:
                self._methods.setdefault(path, []).append(route.method)
        keys = (*pod.config.api_key, *([pod.environment.api_key] if pod.environment.api_key else ()))
        self._keys = [key.encode() for key in keys]

    def description(self) -> dict[str, Any]:
        """The OpenAPI document of the pod."""
        from kvsync_mockpod.http.openapi import describe  # imported late, because few clients ask for it

        models = [*self.pod.config.names, *(adapter.name for adapter in self.pod.loras.adapters())]
        return describe(self._routes, models, keyed=bool(self._keys))

    async def _openapi(self, pod: Pod, request: Request) -> Response:
        del pod, request
        return json_response(self.description())

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one HTTP request; uvicorn runs without lifespan and websockets."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive, _Tracked(send), self.pod.config.mock_max_body_bytes)
        try:
            response = await self._answer(request)
        except ClientDisconnectedError:
            return
        if response is not None:
            if scope["method"] == "HEAD":
                response.body = b""
            await response.write(request.send)

    async def _answer(self, request: Request) -> Response | None:
        sent = request.send
        route: Route | None = None
        try:
            route = self._find(request)
            self._authorize(request)
            if self.pod.faults.http_active and not route.path.startswith("/debug"):
                request.slow_s = apply_http_faults(self.pod, route.path, generates=route.counted)
            if not route.counted:
                return await route.handler(self.pod, request)
            self.pod.server_load += 1
            try:
                return await route.handler(self.pod, request)
            finally:
                self.pod.server_load -= 1
        except HttpError as error:
            shaped = anthropic_error(error) if route is not None and route.anthropic else error.payload()
            return json_response(shaped, error.status, error.headers)
        except ClientDisconnectedError:
            raise
        except Exception:
            _log.exception("handler_failed", path=request.scope["path"])
            if isinstance(sent, _Tracked) and sent.started:
                raise
            failed = HttpError(500, "internal error")
            return json_response(failed.payload(), 500)

    def _find(self, request: Request) -> Route:
        scope = request.scope
        method, path = scope["method"], scope["path"]
        route = self._exact.get((method, path))
        if route is not None:
            return route
        for (wanted, prefix), candidate in self._prefixed.items():
            if wanted == method and path.startswith(prefix) and len(path) > len(prefix):
                request.path_parameter = path[len(prefix) :]
                return candidate
        if method == "HEAD" and ("GET", path) in self._exact:
            return self._exact["GET", path]
        allowed = self._methods.get(path)
        if allowed:
            raise HttpError(405, "Method Not Allowed", headers=((b"allow", ", ".join(sorted(allowed)).encode()),))
        raise not_found(f"there is no path {path[:200]!r}")

    def _authorize(self, request: Request) -> None:
        """Check the API key, which vLLM requires under /v1 only, or the token of a debug endpoint."""
        path = request.scope["path"]
        keys = self._keys if path.startswith("/v1") else []
        for prefix, tokens in self.pod.debug_tokens.items():
            if path.startswith(prefix):
                keys = tokens
        if not keys:
            return
        given = request.headers.get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() == b"bearer" and any(hmac.compare_digest(token.strip(), key) for key in keys):
            return
        raise HttpError(401, "Unauthorized", headers=((b"www-authenticate", b"Bearer"),))


class _Tracked:
    """A `send` that records whether the response has begun."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    def __call__(self, message: Mapping[str, Any]) -> Awaitable[None]:
        self.started = True
        return self._send(message)
