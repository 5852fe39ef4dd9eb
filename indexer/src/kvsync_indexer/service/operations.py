"""What each path of the HTTP API takes and answers. The description and the reference page are generated from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from kvsync_indexer.api import (
    AuditReport,
    AuditRequest,
    BatchMatchAnswer,
    BatchMatchRequest,
    BlockLine,
    DecisionsAnswer,
    DigestAnswer,
    Health,
    HistoryAnswer,
    MatchAnswer,
    MatchRequest,
    PredictionAnswer,
    PredictionReport,
    PublisherRow,
    PublishersAnswer,
    Readiness,
)

Types = tuple[type[msgspec.Struct], ...]
JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain"
BINARY: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    method: Literal["get", "post"]
    path: str
    summary: str
    answers: Types = ()
    """The types of a successful answer, of which there is one; empty if the answer is no JSON that has a type."""
    media: str = JSON
    takes: Types = ()
    """The types of the body, of which there is one."""
    body_required: bool = True
    queries: Mapping[str, str] = field(default_factory=dict)
    """Numbers that may be given in the query string, with what they mean."""
    errors: tuple[int, ...] = ()
    """Statuses with the usual error as their body."""
    unwell: Types = ()
    """The type of the body with status 503, if it is no error."""


REASONS: Final = {
    400: "The connection closed before the body was complete",
    401: "A valid bearer token is needed, if the index was started with tokens",
    404: "No publisher has this name, or no router runs in this process",
    405: "The method is not allowed here",
    408: "The body did not arrive in time",
    413: "The body is too long",
    422: "The request cannot be answered as it was sent; `field` names the field at fault",
    503: "No tokenizer could turn the text into tokens in time",
}

_NAMED: Final = "{name}"
_BODY: Final = (400, 408, 413, 422)

OPERATIONS: Final = (
    Operation(
        "post", "/v1/match", "Which publishers hold how much of a prompt, or of several prompts",
        answers=(MatchAnswer, BatchMatchAnswer), takes=(MatchRequest, BatchMatchRequest), errors=(*_BODY, 503),
    ),
    Operation("get", "/v1/publishers", "Every publisher with its state", answers=(PublishersAnswer,)),
    Operation(
        "get", f"/v1/publishers/{_NAMED}", "One publisher with its state", answers=(PublisherRow,), errors=(404,)
    ),
    Operation(
        "get", f"/v1/publishers/{_NAMED}/blocks", "Every resident block of a publisher, one per line",
        answers=(BlockLine,), media=NDJSON, errors=(404,),
    ),
    Operation(
        "get", f"/v1/publishers/{_NAMED}/digest", "Digests of a publisher's blocks, by tier and group",
        answers=(DigestAnswer,), errors=(404,),
    ),
    Operation(
        "post", "/v1/audit", "Compare the index with the engines' own block tables",
        answers=(AuditReport,), takes=(AuditRequest,), body_required=False, errors=(*_BODY, 404),
    ),
    Operation(
        "post", "/v1/predictions", "Report how a prediction of the index turned out",
        answers=(PredictionAnswer,), takes=(PredictionReport,), errors=(*_BODY, 404),
    ),
    Operation(
        "get", "/v1/history", "Samples and transitions of the last half hour, for charts",
        answers=(HistoryAnswer,), queries={"since": "Unix time in seconds; only what is newer"}, errors=(422,),
    ),
    Operation(
        "get", "/v1/decisions", "The newest decisions of the router in this process, newest first",
        answers=(DecisionsAnswer,), queries={"limit": "Decisions at most"}, errors=(404, 422),
    ),
    Operation("get", "/v1/snapshot", "A snapshot of the index, from which another index can start", media=BINARY),
    Operation(
        "get", "/healthz", "Whether the process works, for a liveness probe", answers=(Health,), unwell=(Health,)
    ),
    Operation(
        "get", "/readyz", "Whether queries get useful answers, for a readiness probe, and why not",
        answers=(Readiness,), unwell=(Readiness,),
    ),
    Operation("get", "/metrics", "Prometheus metrics", media=TEXT),
    Operation("get", "/openapi.json", "This description"),
)  # fmt: skip
