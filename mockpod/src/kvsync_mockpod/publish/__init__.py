"""Event sockets: endpoints of the ranks, the numbered PUB stream, the replay ROUTER."""

from kvsync_mockpod.publish.endpoints import RankEndpoints, plan_endpoints
from kvsync_mockpod.publish.publisher import EventPublisher, PublisherHooks, PublisherStats

__all__ = ["EventPublisher", "PublisherHooks", "PublisherStats", "RankEndpoints", "plan_endpoints"]
