"""The event sockets of a pod: endpoints of its ranks, the numbered PUB stream and the replay server."""

from kvsync_mockpod.publish.curve import CurveServer
from kvsync_mockpod.publish.endpoints import RankEndpoints, plan_endpoints
from kvsync_mockpod.publish.hooks import PublisherHooks
from kvsync_mockpod.publish.publisher import EventPublisher, PublisherStats

__all__ = ["CurveServer", "EventPublisher", "PublisherHooks", "PublisherStats", "RankEndpoints", "plan_endpoints"]
