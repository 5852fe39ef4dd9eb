"""What `vllm serve` puts around its application on request: rules for pages of other origins, and request ids.

Both are ASGI applications that pass everything on but headers. The rules for pages are those of the `CORSMiddleware` of
Starlette, which vLLM uses; the request ids are those of vllm/entrypoints/serve/middleware/x_request_id.py.
"""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from kvsync_mockpod.config import PodConfig
from kvsync_mockpod.http.asgi import Receive, Send, text_response

Application = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_ALL_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_ALWAYS_ALLOWED = ("accept", "accept-language", "content-language", "content-type")
_MAX_AGE_S = b"600"


def wrap(application: Application, config: PodConfig) -> Application:
    """The application with the wrappers that the configuration asks for, in vLLM's order."""
    wrapped: Application = CrossOrigin(application, config)
    return RequestIds(wrapped) if config.enable_request_id_headers else wrapped


class CrossOrigin:
    """Tells browsers which pages may read the answers."""

    def __init__(self, application: Application, config: PodConfig) -> None:
        self._application = application
        self._origins = frozenset(origin.encode() for origin in config.allowed_origins)
        self._any_origin = b"*" in self._origins
        methods = _ALL_METHODS if "*" in config.allowed_methods else config.allowed_methods
        self._methods = frozenset(method.encode() for method in methods)
        self._any_header = "*" in config.allowed_headers
        named = () if self._any_header else config.allowed_headers
        self._headers = frozenset(name.lower().encode() for name in (*_ALWAYS_ALLOWED, *named))
        self._credentials: Headers = (
            [(b"access-control-allow-credentials", b"true")] if config.allow_credentials else []
        )

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer the question of a browser whether it may ask, or add the headers for the page to the answer."""
        if not self._origins and scope["method"] != "OPTIONS":
            await self._application(scope, receive, send)
            return
        given = dict(scope["headers"])
        origin = given.get(b"origin")
        if origin is None:
            await self._application(scope, receive, send)
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in given:
            await self._preflight(origin, given, send)
        else:
            await self._application(scope, receive, _adding(send, self._for_page(origin, b"cookie" in given)))

    def _allows(self, origin: bytes) -> bool:
        return self._any_origin or origin in self._origins

    def _for_page(self, origin: bytes, with_cookie: bool) -> Headers:
        if not self._allows(origin):
            return list(self._credentials)
        if self._any_origin and not (with_cookie and self._credentials):
            return [(b"access-control-allow-origin", b"*"), *self._credentials]
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin"), *self._credentials]

    async def _preflight(self, origin: bytes, given: Mapping[bytes, bytes], send: Send) -> None:
        failed: list[str] = []
        headers: Headers = [(b"access-control-max-age", _MAX_AGE_S), *self._credentials]
        headers.append((b"access-control-allow-methods", _joined(self._methods)))
        if self._allows(origin):
            explicit = not self._any_origin or self._credentials
            headers.append((b"access-control-allow-origin", origin if explicit else b"*"))
            headers += [(b"vary", b"Origin")] if explicit else []
        else:
            failed.append("origin")
        if given[b"access-control-request-method"] not in self._methods:
            failed.append("method")
        wanted = given.get(b"access-control-request-headers")
        if self._any_header:
            headers += [(b"access-control-allow-headers", wanted)] if wanted is not None else []
        else:
            headers.append((b"access-control-allow-headers", _joined(self._headers)))
            if any(name.strip().lower() not in self._headers for name in (wanted or b"").split(b",") if name.strip()):
                failed.append("headers")
        response = text_response("Disallowed CORS " + ", ".join(failed), 400) if failed else text_response("OK")
        response.headers = headers
        await response.write(send)


class RequestIds:
    """Returns the request id of the client, or one that it makes."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Pass the request on, and add `X-Request-Id` to the answer."""
        given = dict(scope["headers"]).get(b"x-request-id")
        identity = uuid.uuid4().hex.encode() if given is None else given
        await self._application(scope, receive, _adding(send, [(b"x-request-id", identity)]))


def _adding(send: Send, headers: Headers) -> Send:
    async def sending(message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *headers]}
        await send(message)

    return sending


def _joined(names: Iterable[bytes]) -> bytes:
    return b", ".join(sorted(names))
