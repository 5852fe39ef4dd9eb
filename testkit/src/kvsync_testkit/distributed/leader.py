"""The leader of an instance: its tables, its workers, and its side of every session."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import singledispatchmethod

from kvsync_testkit.distributed.channel import Answer, Channel
from kvsync_testkit.distributed.holding import HeldSession, SessionPhase
from kvsync_testkit.distributed.protocol import (
    Attach,
    Closed,
    Done,
    Fetch,
    Fetched,
    Find,
    Found,
    LayersReady,
    Ready,
    Request,
)
from kvsync_testkit.distributed.pulling import PulledSession
from kvsync_testkit.distributed.searching import LocatedBlock, ScanResult, find_matches, scan_blocks
from kvsync_testkit.distributed.workers import InstanceWorker
from kvsync_testkit.errors import KitError, SessionClosedError, SessionError, TransportError
from kvsync_testkit.managers.manager import TierManager
from kvsync_testkit.managers.tiers import Tier
from kvsync_testkit.transport import AsyncTransport


class InstanceLeader:
    """One instance of a pair; made by `create_instance_leader_pair` and its kin.

    Attributes:
        name: The instance's name, which its peers use.
        g2: The table of host blocks.
        g3: The table of disk blocks.
        workers: The workers, whose layouts hold the bytes.
        peers: Names of the instances it is connected to.
        channel: Requests to and from peers.
    """

    def __init__(
        self, transport: AsyncTransport, g2: TierManager, g3: TierManager, workers: Sequence[InstanceWorker]
    ) -> None:
        self.name = transport.name
        self.g2 = g2
        self.g3 = g3
        self.workers = tuple(workers)
        self.peers = transport.peers
        self.channel = Channel(transport, self._handle)
        self._held: dict[int, HeldSession] = {}
        self._pulled: dict[tuple[str, int], PulledSession] = {}
        self._sessions = 0
        self._staging: set[asyncio.Task[None]] = set()

    def manager(self, tier: Tier | str) -> TierManager:
        """The table of G2 or G3."""
        return self.g3 if Tier.of(tier) is Tier.G3 else self.g2

    def scan_blocks(self, hashes: Sequence[bytes]) -> ScanResult:
        """`searching.scan_blocks` for this leader."""
        return scan_blocks(self, hashes)

    async def find_matches(self, hashes: Sequence[bytes]) -> list[LocatedBlock]:
        """`searching.find_matches` for this leader and its peers."""
        return await find_matches(self, hashes)

    # --- sessions

    def create_session(self, hashes: Sequence[bytes]) -> HeldSession:
        """Pin the blocks of these hashes that are in G2 or G3.

        Raises:
            SessionError: there is none.
        """
        self._sessions += 1
        session = HeldSession(self, self._sessions, hashes)
        self._held[session.number] = session
        return session

    async def attach(self, holder: str, number: int) -> PulledSession:
        """Join the session of another instance as its puller.

        Raises:
            SessionError: there is no such session, or another instance pulls from it.
        """
        if (holder, number) in self._pulled:
            raise SessionError(f"{self.name} pulls from session {number} of {holder} already")
        session = PulledSession(self, holder, number)
        self._pulled[holder, number] = session
        try:
            await self.channel.call(holder, Attach(number))
        except BaseException:
            del self._pulled[holder, number]
            raise
        return session

    async def announce_layers(self, session: HeldSession, layers: Iterable[int]) -> None:
        """Permit layers to be pulled; returns when the puller knows."""
        fresh = session.announce(layers)
        if fresh and session.puller is not None:
            await self.channel.call(session.puller, LayersReady(session.number, fresh))

    async def close_session(self, session: HeldSession, reason: str = "") -> None:
        """Unpin the blocks and tell the puller; returns when it knows. Closing twice has no effect."""
        if session.phase is SessionPhase.CLOSED:
            return
        session.close()
        del self._held[session.number]
        if session.puller is not None:
            await self.channel.call(session.puller, Closed(session.number, reason))

    async def close(self) -> None:
        """Leave: sessions end, sockets close, memory and files are given back."""
        for session in self._held.values():
            session.close()
        for pulled in self._pulled.values():
            pulled.on_closed(f"{self.name} is closed")
        for task in self._staging:
            task.cancel()
        await asyncio.gather(*self._staging, return_exceptions=True)
        try:
            await self.channel.close()
        finally:
            for worker in self.workers:
                worker.close()

    async def _stage(self, session: HeldSession, puller: str) -> None:
        try:
            session.stage()
            await self.channel.call(puller, Ready(session.number, session.blocks))
        except KitError as error:
            with suppress(TransportError):  # a puller that is gone need not be told
                await self.close_session(session, str(error))

    # --- requests of peers

    def _handle(self, peer: str, request: Request) -> Answer:
        return self._on(request, peer)

    @singledispatchmethod
    def _on(self, request: Request, peer: str) -> Answer:
        raise NotImplementedError(f"{peer} sent {request}")

    @_on.register
    def _(self, request: Find, _peer: str) -> Answer:
        own = self.scan_blocks(request.hashes)
        return Found([(block.hash, block.tier, block.block_id) for block in (*own.g2, *own.g3)]), ()

    @_on.register
    def _(self, request: Attach, peer: str) -> Answer:
        session = self._session(request.session)
        session.attach(peer)
        task = asyncio.create_task(self._stage(session, peer))
        self._staging.add(task)
        task.add_done_callback(self._staging.discard)
        return Done(), ()

    @_on.register
    def _(self, request: Fetch, _peer: str) -> Answer:
        digests, parts = self._session(request.session).serve(request)
        return Fetched(digests), parts

    @_on.register
    def _(self, request: Ready, peer: str) -> Answer:
        self._pulling(peer, request.session).on_ready(request.blocks)
        return Done(), ()

    @_on.register
    def _(self, request: LayersReady, peer: str) -> Answer:
        self._pulling(peer, request.session).on_layers(request.layers)
        return Done(), ()

    @_on.register
    def _(self, request: Closed, peer: str) -> Answer:
        session = self._pulled.pop((peer, request.session), None)
        if session is not None:
            session.on_closed(request.reason)
        return Done(), ()

    def _pulling(self, peer: str, number: int) -> PulledSession:
        session = self._pulled.get((peer, number))
        if session is None:
            raise SessionClosedError(f"{self.name} does not pull from session {number} of {peer}")
        return session

    def _session(self, number: int) -> HeldSession:
        session = self._held.get(number)
        if session is None:
            raise SessionClosedError(f"{self.name} has no session {number}")
        session.require_open()
        return session
