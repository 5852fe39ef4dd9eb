"""The objects that a publisher machine is composed of. Each owns its few fields and can be tested alone."""

from dataclasses import dataclass

from kvsync_indexer.sync.connection import Connection
from kvsync_indexer.sync.outbox import Outbox
from kvsync_indexer.sync.quarantine import Quarantine
from kvsync_indexer.sync.repair import Repair
from kvsync_indexer.sync.session import Replays
from kvsync_indexer.sync.standing import Standing
from kvsync_indexer.sync.states import SyncSettings
from kvsync_indexer.sync.stream import Stream
from kvsync_indexer.sync.verification import Verification


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each for one publisher."""

    settings: SyncSettings
    outbox: Outbox
    standing: Standing
    stream: Stream
    connection: Connection
    replays: Replays
    verification: Verification
    repair: Repair
    quarantine: Quarantine

    @classmethod
    def assemble(cls, name: str, settings: SyncSettings, now: float, epoch: str | None) -> "Parts":
        """Make the parts of a publisher that was just added."""
        outbox = Outbox()
        standing = Standing(name, epoch, outbox, now)
        return cls(
            settings=settings,
            outbox=outbox,
            standing=standing,
            stream=Stream(settings, outbox, standing.counters),
            connection=Connection(settings),
            replays=Replays(settings),
            verification=Verification(settings, now),
            repair=Repair(settings),
            quarantine=Quarantine(settings),
        )
