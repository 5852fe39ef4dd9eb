"""A clock whose time the test advances, for code that waits on a `kvsync_operator.clock.Clock`."""

import asyncio
import heapq
import itertools


class VirtualClock:
    """Virtual time: it starts at 0 and passes only in `advance`."""

    def __init__(self):
        self.now = 0.0
        self._timers = []
        self._sequence = itertools.count()

    def monotonic(self):
        return self.now

    async def sleep(self, seconds):
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._timers, (self.now + seconds, next(self._sequence), future))
        await future

    async def advance(self, seconds):
        """Let `seconds` pass: wake every sleeper when its time has come, and let its task run until it waits again."""
        end = self.now + seconds
        await self.settle()
        while self._timers and self._timers[0][0] <= end:
            self.now, _, future = heapq.heappop(self._timers)
            if not future.done():
                future.set_result(None)
                await self.settle()
        self.now = end

    async def settle(self):
        """Let every task run until all of them wait. The longest chain of callbacks here is far shorter than 50."""
        for _ in range(50):
            await asyncio.sleep(0)
