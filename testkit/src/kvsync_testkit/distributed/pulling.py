"""The half of a session on the instance that pulls the blocks: it waits for layers and writes what arrives."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvsync_testkit.distributed.holding import digest
from kvsync_testkit.distributed.protocol import Fetch, Fetched, G2Block
from kvsync_testkit.errors import SessionClosedError, SessionError, TransferError

if TYPE_CHECKING:
    from kvsync_testkit.distributed.leader import InstanceLeader


@dataclass(frozen=True, slots=True)
class PullReport:
    """What one pull moved.

    Attributes:
        blocks: Number of blocks.
        layers: The layers, in ascending order.
        bytes: Bytes over all workers.
    """

    blocks: int
    layers: tuple[int, ...]
    bytes: int


class PulledSession:
    """What the puller knows of a session, and the means to wait for more.

    Attributes:
        blocks: Blocks of the holder, once the session is ready.
        announced: Layers announced so far.
    """

    def __init__(self, leader: "InstanceLeader", holder: str, number: int) -> None:
        self.holder = holder
        self.number = number
        self.blocks: list[G2Block] | None = None
        self.announced: set[int] = set()
        self._leader = leader
        self._closed: str | None = None
        self._changed = asyncio.Event()

    def on_ready(self, blocks: list[G2Block]) -> None:
        """The holder has every block in host memory."""
        self.blocks = blocks
        self._wake()

    def on_layers(self, layers: Iterable[int]) -> None:
        """The holder announced layers."""
        self.announced |= set(layers)
        self._wake()

    def on_closed(self, reason: str) -> None:
        """The holder closed the session; calls that wait fail at once."""
        self._closed = reason or "it was closed"
        self._wake()

    async def wait_ready(self, timeout_s: float) -> None:
        """Return once the blocks may be pulled.

        Raises:
            SessionClosedError: the session is, or was meanwhile, closed.
            SessionError: it was not ready in time.
        """
        await self._wait("ready", lambda: self.blocks is not None, timeout_s)

    async def wait_layers(self, layers: Iterable[int], timeout_s: float) -> None:
        """Return once all of these layers are announced; raises as `wait_ready`."""
        wanted = set(layers)
        await self._wait(f"layers {sorted(wanted)}", lambda: wanted <= self.announced, timeout_s)

    async def pull(
        self, src: Sequence[G2Block], dst: Sequence[int], layers: Iterable[int] | None, timeout_s: float
    ) -> PullReport:
        """Copy blocks by position into the puller's host layouts; see `TestSession.pull_blocks`."""
        self._require_open()
        workers = self._leader.workers
        config = workers[0].g2.config
        self._check_target(src, dst, config.blocks)
        wanted = sorted(set(range(config.layers) if layers is None else layers))
        if layers is not None or self.announced:
            await self.wait_layers(wanted, timeout_s)
        moved = 0
        for layer in wanted if src else ():
            for worker in workers:
                ids = [block.block_id for block in src]
                request = Fetch(self.number, worker.index, layer, ids, whole=layers is None)
                for block, part in zip(dst, await self._fetch(request), strict=True):
                    worker.g2.write_layer(block, layer, part)
                    moved += len(part)
        return PullReport(len(src), tuple(wanted), moved)

    async def _fetch(self, request: Fetch) -> list[bytes]:
        reply, parts = await self._leader.channel.call(self.holder, request)
        assert isinstance(reply, Fetched)
        if len(parts) != len(request.block_ids) or [digest(part) for part in parts] != reply.digests:
            raise TransferError(f"layer {request.layer} from worker {request.worker} did not arrive as it was sent")
        self._require_open()
        return parts

    def _check_target(self, src: Sequence[G2Block], dst: Sequence[int], blocks: int) -> None:
        if len(src) != len(dst):
            raise TransferError(f"{len(src)} blocks cannot be pulled into {len(dst)}")
        if len(set(dst)) != len(dst):
            raise TransferError(f"the destination names a block twice: {list(dst)}")
        for block in dst:
            if not 0 <= block < blocks:
                raise TransferError(f"block {block} is outside a layout of {blocks} blocks")

    async def _wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._require_open()
                    if condition():
                        return
                    await self._changed.wait()
        except TimeoutError:
            raise SessionError(f"session {self.number}: not {what} within {timeout_s:g} s") from None

    def _require_open(self) -> None:
        if self._closed is not None:
            raise SessionClosedError(f"session {self.number} with {self.holder}: {self._closed}")

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
