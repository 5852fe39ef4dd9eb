"""Every path the pod serves, with what its OpenAPI description needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kvsync_mockpod.http import chat, completions, debug, schemas, status, tokenization
from kvsync_mockpod.http.asgi import Request, Response
from kvsync_mockpod.pod import Pod

__all__ = ["Route", "build_routes"]

Handler = Callable[[Pod, Request], Awaitable[Response | None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. A path may end in one `{parameter}`."""

    method: str
    path: str
    handler: Handler
    summary: str
    body: type | None = None
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    content: str = "application/json"
    counted: bool = False
    """Counts towards `/load`."""


_SERVES = (200, 400, 401, 404, 413, 429, 500, 503)
_RANK = {"rank": {"type": "integer", "minimum": 0}}


def build_routes(pod: Pod) -> list[Route]:
    """The routes this pod's configuration and environment turn on."""
    text = "text/plain"
    routes = [
        Route("GET", "/health", status.health, "Liveness", statuses=(200, 503), content=text),
        Route("GET", "/ping", status.ping, "Liveness", statuses=(200, 503), content=text),
        Route("POST", "/ping", status.ping, "Liveness", statuses=(200, 503), content=text),
        Route("GET", "/version", status.version, "The vLLM version spoken"),
        Route("GET", "/load", status.load, "Requests being served"),
        Route("GET", "/metrics", status.metrics, "Prometheus metrics", content=text),
        Route("GET", "/v1/models", status.models, "Models and adapters", statuses=(200, 401)),
        Route("GET", "/v1/models/{model}", status.model, "One model", statuses=(200, 401, 404)),
        Route(
            "POST", "/v1/completions", completions.completions, "Complete a text",
            body=schemas.CompletionRequest, statuses=_SERVES, counted=True,
        ),
        Route(
            "POST", "/v1/chat/completions", chat.chat_completions, "Answer a conversation",
            body=schemas.ChatRequest, statuses=_SERVES, counted=True,
        ),
        Route(
            "POST", "/tokenize", tokenization.tokenize, "Text to token ids",
            body=schemas.TokenizeRequest, statuses=(200, 400, 404, 413),
        ),
        Route(
            "POST", "/detokenize", tokenization.detokenize, "Token ids to text",
            body=schemas.DetokenizeRequest, statuses=(200, 400, 404, 413),
        ),
    ]  # fmt: skip
    if pod.config.mock_debug:
        routes += _debug_routes()
    return routes


def _debug_routes() -> list[Route]:
    ndjson = "application/x-ndjson"
    log_query = {**_RANK, "since": {"type": "integer", "minimum": 0}, "limit": {"type": "integer", "minimum": 1}}
    return [
        Route(
            "GET",
            "/debug/kv/blocks",
            debug.kv_blocks,
            "Resident blocks",
            query=_RANK,
            statuses=(200, 400),
            content=ndjson,
        ),
        Route(
            "GET", "/debug/kv/log", debug.kv_log, "Transition log", query=log_query, statuses=(200, 400), content=ndjson
        ),
        Route(
            "GET", "/debug/kv/digest", debug.kv_digest, "Digest of the block table", query=_RANK, statuses=(200, 400)
        ),
    ]
