"""Every request and answer of the index's HTTP API, each defined once.

The service encodes these types, and everything that asks an index decodes them: the router, the command line and the
operator. The package therefore imports nothing but msgspec, and importing it loads neither ZMQ nor an HTTP library.

Answers are decoded leniently. Unknown fields are ignored, and a field that is added later gets a default, so that a
client and an index of neighbouring versions understand each other. Requests are strict: an unknown field is an error,
because it is most likely a misspelt one.
"""

from kvsync_indexer.api.audit import AuditReport, AuditRequest, PublisherAudit, SlotDifference, Verdict
from kvsync_indexer.api.decisions import Candidate, Decision, DecisionsAnswer
from kvsync_indexer.api.errors import ErrorAnswer, ErrorDetail
from kvsync_indexer.api.health import Health, Readiness
from kvsync_indexer.api.history import HistoryAnswer, HistoryPoint, Transition
from kvsync_indexer.api.match import (
    MOST_QUERIES,
    BatchMatchAnswer,
    BatchMatchRequest,
    BatchMatchResult,
    MatchAnswer,
    MatchRequest,
    MatchRow,
)
from kvsync_indexer.api.predictions import PredictionAnswer, PredictionReport
from kvsync_indexer.api.prompts import FirstPrompt, PromptFields, RequestBody
from kvsync_indexer.api.publishers import BlockLine, DigestAnswer, DigestRow, PublisherRow, PublishersAnswer

__all__ = [
    "MOST_QUERIES",
    "AuditReport",
    "AuditRequest",
    "BatchMatchAnswer",
    "BatchMatchRequest",
    "BatchMatchResult",
    "BlockLine",
    "Candidate",
    "Decision",
    "DecisionsAnswer",
    "DigestAnswer",
    "DigestRow",
    "ErrorAnswer",
    "ErrorDetail",
    "FirstPrompt",
    "Health",
    "HistoryAnswer",
    "HistoryPoint",
    "MatchAnswer",
    "MatchRequest",
    "MatchRow",
    "PredictionAnswer",
    "PredictionReport",
    "PromptFields",
    "PublisherAudit",
    "PublisherRow",
    "PublishersAnswer",
    "Readiness",
    "RequestBody",
    "SlotDifference",
    "Transition",
    "Verdict",
]
