"""The bus in memory: deterministic and without sockets, and like a real one it keeps nothing for later subscribers."""

import asyncio

from kvsync_testkit.events.bus import Bus, Frames, Subscription


class StubSubscription(Subscription):
    """A queue in memory."""

    def __init__(self, topic: str) -> None:
        super().__init__(topic)
        self.queue: asyncio.Queue[Frames] = asyncio.Queue()

    async def _receive(self, timeout_s: float) -> Frames:
        if not self.queue.empty():
            return self.queue.get_nowait()
        try:
            return await asyncio.wait_for(self.queue.get(), timeout_s)
        except TimeoutError:
            raise self.silence(timeout_s) from None

    def _close(self) -> None:
        return None


class StubBus(Bus):
    """Delivers at once to the subscriptions that exist. It does not buffer: subscribe before publishing."""

    async def _subscribe(self, topic: str) -> StubSubscription:
        return StubSubscription(topic)

    def _publish(self, frames: Frames, matching: list[Subscription]) -> None:
        for subscription in matching:
            assert isinstance(subscription, StubSubscription)
            subscription.queue.put_nowait(frames)

    def _close(self) -> None:
        return None
