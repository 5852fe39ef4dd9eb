"""The pipeline as one object: managers at one end, decoded batches at the other."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from kvsync_events import Event, EventBatch, WireForm, decode_batch, parse_pub_frames
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.errors import BusError
from kvsync_testkit.events.bus import DEFAULT_TIMEOUT_S, Bus, Frames, Subscription
from kvsync_testkit.events.hooks import FaultHook
from kvsync_testkit.events.publisher import BatchingPublisher
from kvsync_testkit.managers.building import ManagerBuilder
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.managers.manager import TierManager
from kvsync_testkit.managers.policies import EventPolicy
from kvsync_testkit.managers.registry import BlockRegistry
from kvsync_testkit.managers.tiers import Tier
from kvsync_testkit.token_blocks import DEFAULT_BLOCK_SIZE

if TYPE_CHECKING:
    from kvsync_testkit.events.building import EventsPipelineBuilder


@dataclass(frozen=True, slots=True)
class ReceivedBatch:
    """One batch as the subscriber decoded it.

    Attributes:
        instance_id: Who published it, as its topic says.
        seq: Its sequence number.
        batch: The decoded payload; hashes have the wire's form, by default the low 64 bits of the digest.
    """

    instance_id: str
    seq: int
    batch: EventBatch

    @property
    def events(self) -> list[Event]:
        """The events of the batch, in order."""
        return self.batch.events


class EventsPipelineFixture:
    """Manager to subscriber over a bus; make one with `EventsPipelineFixture.builder()`.

    Attributes:
        clock: The virtual clock of batching windows and delays.
        bus: Where batches go; further subscribers may join.
        registry: Shared by the managers that the pipeline makes.
        events_manager: Where their events collect.
        publisher: Numbers and sends batches.
        subscription: The pipeline's own subscriber, which was there before the first batch.
        instance_id: Last part of the topic.
        subject: First part of the topic.
    """

    def __init__(
        self,
        *,
        bus: Bus,
        owns_bus: bool,
        subscription: Subscription,
        clock: VirtualClock,
        policy: EventPolicy,
        faults: FaultHook,
        form: WireForm,
        window_s: float,
        instance_id: str,
        subject: str,
    ) -> None:
        self.clock = clock
        self.bus = bus
        self.subscription = subscription
        self.instance_id = instance_id
        self.subject = subject
        self.events_manager = EventsManager(policy)
        self.registry = BlockRegistry(self.events_manager)
        self.publisher = BatchingPublisher(
            self.events_manager,
            bus,
            clock,
            topic=f"{subject}.{instance_id}",
            window_s=window_s,
            form=form,
            faults=faults,
        )
        self._owns_bus = owns_bus

    @staticmethod
    def builder() -> "EventsPipelineBuilder":
        """Settings by name, with a default for each."""
        from kvsync_testkit.events.building import EventsPipelineBuilder

        return EventsPipelineBuilder()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    def create_manager(
        self, tier: Tier | str = Tier.G1, blocks: int = 64, block_size: int = DEFAULT_BLOCK_SIZE
    ) -> TierManager:
        """A manager whose events enter the pipeline."""
        return ManagerBuilder(tier, block_count=blocks, block_size=block_size, registry=self.registry).build()

    async def flush_and_receive(self) -> ReceivedBatch:
        """End the batching window now, and receive the oldest batch that was not received yet.

        Raises:
            BusError, DecodeError: as `receive_batch`.
        """
        self.publisher.flush()
        return await self.receive_batch()

    async def receive_batch(self) -> ReceivedBatch:
        """The next batch of this subject.

        Raises:
            BusError: none is on its way, which is known at once; the message says what was published and what is late.
            DecodeError: the payload is no batch; it counts as received.
        """
        frame = parse_pub_frames(await self.receive_frames())
        return ReceivedBatch(frame.topic.decode().rpartition(".")[2], frame.seq, decode_batch(frame.payload))

    async def receive_frames(self) -> Frames:
        """The same as raw frames: topic, sequence, payload."""
        if not self.subscription.outstanding:
            raise BusError(
                f"no batch is on its way: {self.publisher.batches} made, {self.publisher.delayed} delayed, "
                f"{self.events_manager.pending} events wait for the end of their window"
            )
        return await self.subscription.receive(timeout_s=DEFAULT_TIMEOUT_S)

    def close(self) -> None:
        """Stop publishing and unsubscribe; closes the bus too if the pipeline opened it."""
        self.publisher.close()
        self.subscription.close()
        if self._owns_bus:
            self.bus.close()
