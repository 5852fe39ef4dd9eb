"""The builder of event pipelines."""

from typing import Self

from kvsync_events import NEWEST_VERSION, WireForm
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.events.bus import Bus
from kvsync_testkit.events.hooks import FaultHook, NoFaults
from kvsync_testkit.events.pipeline import EventsPipelineFixture
from kvsync_testkit.events.stub import StubBus
from kvsync_testkit.events.zmqbus import ZmqBus
from kvsync_testkit.managers.policies import AllEvents, EventPolicy
from kvsync_testkit.naming import unknown_name

_BUSES: dict[str, type[Bus]] = {"stub": StubBus, "zmq": ZmqBus}


class EventsPipelineBuilder:
    """Settings of a pipeline: windows of 10 ms, the in-memory bus, all events, no faults, unless changed."""

    def __init__(
        self,
        *,
        batching_window: float = 10.0,
        instance_id: str | int = "instance-0",
        subject: str = "kv-events",
        bus: Bus | str = "stub",
        policy: EventPolicy | None = None,
        faults: FaultHook | None = None,
        clock: VirtualClock | None = None,
        wire_version: str = NEWEST_VERSION,
    ) -> None:
        self._window_ms = batching_window
        self._instance_id = str(instance_id)
        self._subject = subject
        self._bus = bus
        self._policy = policy
        self._faults = faults
        self._clock = clock
        self._version = wire_version

    def batching_window(self, milliseconds: float) -> Self:
        """How long events collect before they go out as one batch; 0 sends every change at once."""
        self._window_ms = milliseconds
        return self

    def instance_id(self, instance_id: str | int) -> Self:
        """Who publishes; the last part of the topic."""
        self._instance_id = str(instance_id)
        return self

    def subject(self, subject: str) -> Self:
        """The first part of the topic, and what the pipeline's own subscriber asks for."""
        self._subject = subject
        return self

    def bus(self, bus: Bus | str) -> Self:
        """`stub` or `zmq` for a bus that the pipeline opens and closes, or an open bus that others share."""
        self._bus = bus
        return self

    def policy(self, policy: EventPolicy) -> Self:
        """Which blocks are announced."""
        self._policy = policy
        return self

    def faults(self, faults: FaultHook) -> Self:
        """What happens to batches on their way to the bus, for example a `FaultScript`."""
        self._faults = faults
        return self

    def clock(self, clock: VirtualClock) -> Self:
        """A clock that is shared with other parts of the test."""
        self._clock = clock
        return self

    def wire_version(self, version: str) -> Self:
        """The vLLM version whose encoding is used."""
        self._version = version
        return self

    async def build_async(self) -> EventsPipelineFixture:
        """The pipeline; its subscription is in force before the first manager exists.

        Raises:
            ConfigurationError: a negative window, an unknown bus, or an instance id that would divide the topic.
        """
        if self._window_ms < 0:
            raise ConfigurationError(f"batching window of {self._window_ms:g} ms: it cannot be negative")
        if "." in self._instance_id:
            raise ConfigurationError(f"instance id {self._instance_id!r}: a dot would divide the topic")
        form = WireForm.for_version(self._version)
        owns_bus = isinstance(self._bus, str)
        bus = _open_bus(self._bus) if isinstance(self._bus, str) else self._bus
        try:
            subscription = await bus.subscribe(f"{self._subject}.")
        except BaseException:
            if owns_bus:
                bus.close()
            raise
        return EventsPipelineFixture(
            bus=bus,
            owns_bus=owns_bus,
            subscription=subscription,
            clock=self._clock or VirtualClock(),
            policy=self._policy or AllEvents(),
            faults=self._faults or NoFaults(),
            form=form,
            window_s=self._window_ms / 1000,
            instance_id=self._instance_id,
            subject=self._subject,
        )


def _open_bus(name: str) -> Bus:
    if name not in _BUSES:
        raise unknown_name("bus", name, _BUSES)
    return _BUSES[name]()
