"""Both halves of a session in one object, for tests that play holder and puller."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Self

from kvsync_testkit.distributed.holding import HeldSession, SessionPhase
from kvsync_testkit.distributed.leader import InstanceLeader
from kvsync_testkit.distributed.protocol import G2Block
from kvsync_testkit.distributed.pulling import PulledSession, PullReport
from kvsync_testkit.errors import TransportError

DEFAULT_TIMEOUT_S: Final = 10.0


class TestSession:
    """A session between the leader that holds blocks and the one that pulls them; see `establish`."""

    __test__ = False  # for pytest, which takes classes called Test… for tests

    def __init__(self, leader: InstanceLeader, held: HeldSession, pulled: PulledSession, timeout_s: float) -> None:
        self._leader = leader
        self._held = held
        self._pulled = pulled
        self._timeout_s = timeout_s

    @classmethod
    async def establish(
        cls,
        leader: InstanceLeader,
        remote: InstanceLeader,
        hashes: Sequence[bytes],
        timeout: float = DEFAULT_TIMEOUT_S,  # noqa: ASYNC109 - also the default of later waits
    ) -> Self:
        """Create a session at `leader`, attach `remote` to it, and wait until every block is in host memory.

        Args:
            leader: Has the blocks, in G2 or G3. Those that it does not have are left out of the session.
            remote: Will pull them.
            hashes: The blocks, contiguous or not.
            timeout: Longest wait in seconds, here and later for layers.

        Raises:
            SessionError: the leader has none of the blocks, or was not ready in time.
            SessionClosedError: it closed the session, for lack of room in host memory for instance.
        """
        held = leader.create_session(hashes)
        try:
            pulled = await remote.attach(leader.name, held.number)
            await pulled.wait_ready(timeout)
        except BaseException:
            with suppress(TransportError):  # the caller gets the first error, not this one
                await leader.close_session(held, "it was given up")
            raise
        return cls(leader, held, pulled, timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def phase(self) -> SessionPhase:
        """How far the session has come, as its holder sees it."""
        return self._held.phase

    def g2_blocks(self) -> list[G2Block]:
        """The holder's blocks in host memory, in the order in which they were asked for; empty once closed."""
        return self._held.blocks

    async def pull_blocks(
        self, src: Sequence[G2Block], dst: Sequence[int], *, layers: Iterable[int] | None = None
    ) -> PullReport:
        """Copy blocks over the transport into the remote's host layouts, on every worker, checked by digest.

        Args:
            src: Blocks of this session.
            dst: Block ids at the remote, by position; `remote.g2.allocate` gives free ones.
            layers: Which layers. Named layers must have been announced, and the pull waits until they are. None takes
                complete blocks; if layers have been announced, it waits until all of them are.

        Raises:
            SessionClosedError: the session is closed, or was closed while this waited.
            SessionError: a layer was not announced in time, or a block does not belong to the session.
            TransferError: source and destination do not fit, or bytes arrived damaged.
        """
        return await self._pulled.pull(src, dst, layers, self._timeout_s)

    async def notify_layers_ready(self, layers: Iterable[int]) -> None:
        """Announce that these layers of all blocks are computed, for example `range(0, 3)`; the remote knows on return.

        Raises:
            ConfigurationError: there is no such layer.
            SessionClosedError: the session is closed.
        """
        await self._leader.announce_layers(self._held, layers)

    async def close(self) -> None:
        """Unpin the blocks; pulls that wait or come later are refused at once. Closing twice has no effect."""
        await self._leader.close_session(self._held)
