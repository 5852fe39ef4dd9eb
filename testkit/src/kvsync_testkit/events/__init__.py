"""The path of an event from a block manager to a subscriber, in virtual time and with faults at chosen batches.

    manager -> EventsManager -> BatchingPublisher -> fault hook -> bus -> subscription -> EventBatch

The bytes are those of the wire: batches are encoded and decoded by `kvsync_events` on either bus. `StubBus` stays in
memory; `ZmqBus` is a real socket. Neither keeps anything for a subscriber that comes later.
"""

from kvsync_testkit.events.building import EventsPipelineBuilder
from kvsync_testkit.events.bus import Bus, Subscription
from kvsync_testkit.events.hooks import Delivery, FaultHook, NoFaults
from kvsync_testkit.events.pipeline import EventsPipelineFixture, ReceivedBatch
from kvsync_testkit.events.publisher import BatchingPublisher
from kvsync_testkit.events.script import FaultScript
from kvsync_testkit.events.stub import StubBus
from kvsync_testkit.events.zmqbus import ZmqBus
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.managers.policies import AllEvents, EventPolicy, PowersOfTwo

__all__ = [
    "AllEvents",
    "BatchingPublisher",
    "Bus",
    "Delivery",
    "EventPolicy",
    "EventsManager",
    "EventsPipelineBuilder",
    "EventsPipelineFixture",
    "FaultHook",
    "FaultScript",
    "NoFaults",
    "PowersOfTwo",
    "ReceivedBatch",
    "StubBus",
    "Subscription",
    "ZmqBus",
]
