"""The router: an OpenAI proxy that sends a request where most of its prompt is already computed.

Decisions (`policies`, `endpoints`) are pure and seeded; `proxy` moves bytes; `health` keeps the rotation true;
`scoring` and `directory` are the two questions put to an index, `predicting` tells it how its answers did; all in
process or over HTTP.
"""

from kvsync_indexer.router.app import Router, build_router
from kvsync_indexer.router.client import HttpClient
from kvsync_indexer.router.config import RouterConfig
from kvsync_indexer.router.directory import CallableDirectory, Directory, FileDirectory, HttpDirectory
from kvsync_indexer.router.endpoints import EndpointInfo, EndpointStats
from kvsync_indexer.router.errors import (
    RequestRefusedError,
    RouterConfigError,
    RouterError,
    ScorerUnavailableError,
)
from kvsync_indexer.router.policies import POLICY_NAMES, Candidate, Policy, make_policy
from kvsync_indexer.router.predicting import CallablePredictions, HttpPredictions, Prediction, PredictionSink
from kvsync_indexer.router.scoring import CallableScorer, HttpScorer, Query, Score, Scorer

__all__ = [
    "POLICY_NAMES",
    "CallableDirectory",
    "CallablePredictions",
    "CallableScorer",
    "Candidate",
    "Directory",
    "EndpointInfo",
    "EndpointStats",
    "FileDirectory",
    "HttpClient",
    "HttpDirectory",
    "HttpPredictions",
    "HttpScorer",
    "Policy",
    "Prediction",
    "PredictionSink",
    "Query",
    "RequestRefusedError",
    "Router",
    "RouterConfig",
    "RouterConfigError",
    "RouterError",
    "Score",
    "Scorer",
    "ScorerUnavailableError",
    "build_router",
    "make_policy",
]
