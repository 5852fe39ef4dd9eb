"""Every path that the pod serves, with the data that its OpenAPI description needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kvsync_mockpod.faults.spec import FaultPlan
from kvsync_mockpod.http import admin, chat, completions, debug, faults, messages, schemas, status, tokenization
from kvsync_mockpod.http.asgi import Request, Response
from kvsync_mockpod.http.responses import Responses
from kvsync_mockpod.pod import Pod

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
    """Whether the request counts towards `/load`."""
    streams: bool = False
    """Whether the response may consist of server-sent events."""
    anthropic: bool = False
    """Whether errors have Anthropic's form."""


_TEXT = "text/plain"
_NDJSON = "application/x-ndjson"
_BODY = (200, 400, 401, 404, 413)
_SERVES = (*_BODY, 429, 500, 503)
_FLAG: dict[str, Any] = {"type": "boolean"}
_RANK = {"rank": {"type": "integer", "minimum": 0}}
_MODE: dict[str, dict[str, Any]] = {"mode": {"type": "string", "enum": ["abort", "wait", "keep"]}}


def build_routes(pod: Pod) -> list[Route]:
    """The routes that this pod's configuration and environment enable."""
    routes = [*_status_routes(), *_generating_routes(), *_text_routes()]
    if pod.environment.runtime_lora_updating:
        routes += _lora_routes()
    if pod.environment.dev_mode:
        routes += _dev_routes()
    if pod.config.mock_debug:
        routes += _debug_routes()
    return routes


def _status_routes() -> list[Route]:
    return [
        Route("GET", "/health", status.health, "Liveness", statuses=(200, 503), content=_TEXT),
        Route("GET", "/ping", status.ping, "Liveness", statuses=(200, 503), content=_TEXT),
        Route("POST", "/ping", status.ping, "Liveness", statuses=(200, 503), content=_TEXT),
        Route("GET", "/version", status.version, "The vLLM version imitated"),
        Route("GET", "/load", status.load, "Requests being served"),
        Route("GET", "/metrics", status.metrics, "Prometheus metrics", content=_TEXT),
        Route("GET", "/kv_event_sources", admin.kv_event_sources, "Event endpoints by rank"),
        Route("GET", "/v1/models", status.models, "Models and adapters", statuses=(200, 401)),
        Route("GET", "/v1/models/{model}", status.model, "One model", statuses=(200, 401, 404)),
    ]


def _generating_routes() -> list[Route]:
    def serving(path: str, handler: Handler, summary: str, body: type, *, anthropic: bool = False) -> Route:
        return Route(
            "POST",
            path,
            handler,
            summary,
            body=body,
            statuses=_SERVES,
            counted=True,
            streams=True,
            anthropic=anthropic,
        )

    responses = Responses()
    counting = messages.count_tokens
    return [
        serving("/v1/completions", completions.completions, "Complete a text", schemas.CompletionRequest),
        serving("/v1/chat/completions", chat.chat_completions, "Answer a conversation", schemas.ChatRequest),
        serving("/v1/responses", responses.create, "Answer, in OpenAI's newer form", schemas.ResponsesRequest),
        Route("GET", "/v1/responses/{response}", responses.get, "A stored answer", statuses=(200, 401, 404)),
        serving("/v1/messages", messages.messages, "Anthropic's shape", schemas.MessagesRequest, anthropic=True),
        Route(
            "POST",
            "/v1/messages/count_tokens",
            counting,
            "Tokens of a message request",
            body=schemas.CountTokensRequest,
            statuses=_BODY,
            anthropic=True,
        ),
    ]


def _text_routes() -> list[Route]:
    return [
        Route("POST", "/tokenize", tokenization.tokenize, "Text to ids", body=schemas.TokenizeRequest, statuses=_BODY),
        Route(
            "POST",
            "/detokenize",
            tokenization.detokenize,
            "Ids to text",
            body=schemas.DetokenizeRequest,
            statuses=_BODY,
        ),
    ]


def _lora_routes() -> list[Route]:
    load, unload = schemas.LoadLoraRequest, schemas.UnloadLoraRequest
    return [
        Route(
            "POST",
            "/v1/load_lora_adapter",
            admin.load_lora,
            "Serve an adapter",
            body=load,
            statuses=_BODY,
            content=_TEXT,
        ),
        Route(
            "POST",
            "/v1/unload_lora_adapter",
            admin.unload_lora,
            "Drop an adapter",
            body=unload,
            statuses=_BODY,
            content=_TEXT,
        ),
    ]


def _dev_routes() -> list[Route]:
    reset = {"reset_running_requests": _FLAG, "reset_external": _FLAG}
    level: dict[str, dict[str, Any]] = {"level": {"type": "integer", "minimum": 0, "maximum": 2}, **_MODE}
    tags = {"tags": {"type": "string"}}
    form: dict[str, dict[str, Any]] = {"config_format": {"type": "string", "enum": ["text", "json"]}}
    bad = (200, 400)
    return [
        Route("POST", "/reset_prefix_cache", admin.reset_prefix_cache, "Clear the cache", query=reset, statuses=bad),
        Route("POST", "/sleep", admin.sleep, "Put to sleep", query=level, statuses=bad),
        Route("POST", "/wake_up", admin.wake_up, "Wake", query=tags),
        Route("GET", "/is_sleeping", admin.is_sleeping, "Whether it sleeps"),
        Route("POST", "/pause", admin.pause, "Stop scheduling", query={**_MODE, "clear_cache": _FLAG}, statuses=bad),
        Route("POST", "/resume", admin.resume, "Schedule again"),
        Route("GET", "/is_paused", admin.is_paused, "Whether it is paused"),
        Route("GET", "/server_info", admin.server_info, "The configuration", query=form, statuses=bad),
    ]


def _debug_routes() -> list[Route]:
    number = {"type": "integer", "minimum": 0}
    log = {**_RANK, "since": number, "limit": {"type": "integer", "minimum": 1, "maximum": 1_000_000}}
    bad = (200, 400)
    plan = (200, 400, 413)
    return [
        Route("GET", "/debug/faults", faults.get_faults, "The fault plan and its counts"),
        Route("PUT", "/debug/faults", faults.put_faults, "Set the fault plan", body=FaultPlan, statuses=plan),
        Route("DELETE", "/debug/faults", faults.clear_faults, "Heal"),
        Route("GET", "/debug/kv/blocks", debug.kv_blocks, "Blocks", query=_RANK, statuses=bad, content=_NDJSON),
        Route("GET", "/debug/kv/log", debug.kv_log, "Transition log", query=log, statuses=bad, content=_NDJSON),
        Route("GET", "/debug/kv/digest", debug.kv_digest, "Digest of the blocks", query=_RANK, statuses=bad),
    ]
