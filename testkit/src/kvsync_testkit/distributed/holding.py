"""The half of a session on the instance that has the blocks: it pins them, announces layers, and serves bytes."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING

from kvsync_testkit.distributed.protocol import Fetch, G2Block
from kvsync_testkit.errors import ConfigurationError, SessionClosedError, SessionError

if TYPE_CHECKING:
    from kvsync_testkit.distributed.leader import InstanceLeader


class SessionPhase(StrEnum):
    """How far a session has come."""

    CREATED = "created"
    """The holder has pinned the blocks."""
    ATTACHED = "attached"
    """The puller knows of the session; blocks on disk are being staged to host memory."""
    READY = "ready"
    """Every block is in host memory and may be pulled."""
    CLOSED = "closed"
    """Nothing can be pulled any more, and nothing is pinned."""


class HeldSession:
    """Blocks of one leader, pinned for one puller until the session is closed.

    Attributes:
        number: Identifies the session at this leader.
        phase: How far it has come.
        puller: Name of the instance that attached, None before.
        announced: Layers announced so far.
    """

    def __init__(self, leader: "InstanceLeader", number: int, hashes: Sequence[bytes]) -> None:
        self.number = number
        self.phase = SessionPhase.CREATED
        self.puller: str | None = None
        self.announced: set[int] = set()
        self._leader = leader
        self._hashes = list(hashes)
        self._ids: dict[bytes, int] = {}
        self._pins = ExitStack()
        for one in leader.g2.scan(hashes):
            self._ids[one] = self._pins.enter_context(leader.g2.match([one])).block_ids[0]
        self._disk: dict[bytes, int] = {}
        for one in leader.g3.scan([one for one in hashes if one not in self._ids]):
            self._disk[one] = self._pins.enter_context(leader.g3.match([one])).block_ids[0]
        if not self._ids and not self._disk:
            raise SessionError(f"{leader.name} has none of the {len(self._hashes)} blocks")

    @property
    def blocks(self) -> list[G2Block]:
        """The blocks that can be pulled, in the order in which they were asked for."""
        return [G2Block(one, self._ids[one]) for one in self._hashes if one in self._ids]

    def attach(self, puller: str) -> None:
        """Give the session to the instance that will pull from it.

        Raises:
            SessionError: another one has it.
        """
        if self.puller is not None:
            raise SessionError(f"session {self.number} belongs to {self.puller} already")
        self.puller = puller
        self.phase = SessionPhase.ATTACHED

    def stage(self) -> None:
        """Bring the blocks that are on disk into host memory, bytes and all.

        Raises:
            CapacityError: host memory has no room for them.
            SessionClosedError: the session was closed before it came to this.
        """
        self.require_open()
        g2, g3 = self._leader.g2, self._leader.g3
        if self._disk:
            tokens = [g3.token_block(one) for one in self._disk]
            with g2.allocate(len(tokens)) as allocated:
                for worker in self._leader.workers:
                    worker.stage(list(self._disk.values()), allocated.block_ids)
                held = self._pins.enter_context(allocated.complete(tokens).register())
            self._ids |= dict(zip(held.hashes, held.block_ids, strict=True))
            self._disk = {}
        self.phase = SessionPhase.READY

    def announce(self, layers: Iterable[int]) -> list[int]:
        """Permit these layers to be pulled; gives those that are new.

        Raises:
            ConfigurationError: the blocks have no such layer.
            SessionClosedError: the session is closed.
        """
        self.require_open()
        count = self._leader.workers[0].g2.config.layers
        wanted = sorted(set(layers))
        for layer in wanted:
            if not 0 <= layer < count:
                raise ConfigurationError(f"layer {layer} is announced, but blocks have {count} layers")
        fresh = [layer for layer in wanted if layer not in self.announced]
        self.announced |= set(fresh)
        return fresh

    def serve(self, request: Fetch) -> tuple[list[bytes], list[bytes]]:
        """Digests and bytes of one layer of some blocks, from one worker.

        Raises:
            SessionClosedError: the session is closed.
            SessionError: it is not ready, the layer was not announced, or a block does not belong to it.
        """
        self.require_open()
        if self.phase is not SessionPhase.READY:
            raise SessionError(f"session {self.number} is {self.phase}, not ready")
        if request.layer not in self.announced and (self.announced or not request.whole):
            raise SessionError(f"layer {request.layer} of session {self.number} was not announced")
        foreign = set(request.block_ids) - set(self._ids.values())
        if foreign:
            raise SessionError(f"block {min(foreign)} does not belong to session {self.number}")
        layout = self._leader.workers[request.worker].g2
        parts = [layout.read_layer(block, request.layer) for block in request.block_ids]
        return [digest(part) for part in parts], parts

    def close(self) -> None:
        """Let go of the blocks. Closing twice has no effect."""
        self.phase = SessionPhase.CLOSED
        self._ids.clear()
        self._pins.close()

    def require_open(self) -> None:
        """Raises SessionClosedError if the session is closed."""
        if self.phase is SessionPhase.CLOSED:
            raise SessionClosedError(f"session {self.number} is closed")


def digest(part: bytes) -> bytes:
    """What both ends compare to know that a part arrived as it was sent."""
    return blake2b(part, digest_size=16).digest()
