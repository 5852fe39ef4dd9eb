"""Takes snapshots, and starts an index from one: from its own file, or from a running peer."""

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from kvsync_indexer.client import AsyncIndexClient, IndexClientError
from kvsync_indexer.core import IndexCore, SnapshotError, join_snapshot
from kvsync_indexer.errors import ConfigError, SnapshotFileError
from kvsync_indexer.ingest import Ingest, PublisherLink
from kvsync_indexer.snapshot import (
    TAIL,
    SnapshotHeader,
    StreamPoint,
    decode_snapshot,
    encode_snapshot,
    read_snapshot,
    write_snapshot,
)
from kvsync_indexer.sync import State

_log = structlog.get_logger("kvsync_indexer.snapshot")

PEER_TIMEOUT_S = 60.0
_GONE = frozenset({State.REMOVED, State.QUARANTINED})


def check_directory(directory: Path) -> None:
    """Make the directory and check that it is writable. Raises ConfigError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"--snapshot-dir {directory}: {error.strerror}") from None


class Snapshots:
    """Takes and restores snapshots of one core and the positions of its streams."""

    def __init__(
        self,
        core: IndexCore,
        ingest: Ingest,
        directory: Path | None,
        wall: Callable[[], float] = time.time,
        token: Callable[[], str | None] = lambda: None,
    ) -> None:
        """`token` is for the snapshot of a peer, which has the same tokens."""
        self._token = token
        self._core = core
        self._ingest = ingest
        self._directory = directory
        self._wall = wall
        self._batches = -1
        self.written = 0
        self.failures = 0
        self.last_bytes = 0
        self.last_at: float | None = None
        """Wall time of the last snapshot that was written."""

    async def take(self) -> bytes:
        """Take a snapshot in which the blocks of each publisher and the position of its stream agree.

        Publishers are copied one after the other. Queries are answered meanwhile, and between two publishers the I/O
        thread goes on with what has arrived.
        """
        frozen: dict[str, tuple[StreamPoint, bytes]] = {}
        for link in self._ingest.links():
            point = await asyncio.wrap_future(self._ingest.call(partial(self._freeze, link)))
            if point is not None:
                frozen[link.spec.name] = point
        header = SnapshotHeader(
            created=self._wall(), core=self._core.name, publishers=[point for point, _ in frozen.values()]
        )
        parts = [frozen[name][1] for name in sorted(frozen, key=str.encode)]

        def whole() -> bytes:
            return encode_snapshot(header, join_snapshot(self._core.seed, parts))

        return await asyncio.to_thread(whole)

    async def write(self) -> None:
        """Write a snapshot to the directory if anything was applied since the last one. Failures are counted."""
        batches = sum(link.totals.batches + link.machine.counters.clears for link in self._ingest.links())
        if self._directory is None or batches == self._batches:
            return
        try:
            data = await self.take()
            await asyncio.to_thread(write_snapshot, self._directory, data)
        except OSError as error:
            self.failures += 1
            _log.error("snapshot_failed", directory=str(self._directory), problem=error.strerror or str(error))
            return
        self._batches = batches
        self.written += 1
        self.last_bytes, self.last_at = len(data), self._wall()
        _log.debug("snapshot_written", bytes=len(data))

    def _freeze(self, link: PublisherLink) -> tuple[StreamPoint, bytes] | None:
        """One publisher at this moment. Runs in the I/O thread, where no batch is half applied."""
        machine, position = link.machine, link.machine.position
        if machine.state in _GONE or not position.known or self._ingest.link(link.spec.name) is not link:
            return None
        point = StreamPoint(
            name=link.spec.name,
            model=link.spec.model,
            epoch=machine.epoch,
            next_seq=position.next_seq,
            base_seq=position.base_seq,
            incomplete=machine.incomplete,
            tail=position.tail()[-TAIL:],
            last_copy_only=link.follower.removals.removals == "last_copy",
        )
        return point, self._core.snapshot_part(link.spec.name)

    async def restore(self, peer: str | None) -> int:
        """Restore the core from the directory, else from the peer, and return the number of publishers to resume.

        To be called before the ingest starts. If the snapshot cannot be used, the reason is logged and the index starts
        empty.
        """
        data = await asyncio.to_thread(self._read)
        origin = str(self._directory)
        if data is None and peer is not None:
            data, origin = await self._fetch(peer), peer
        if data is None:
            return 0
        try:
            header, core = decode_snapshot(data)
            names = set(await asyncio.to_thread(self._core.restore, core))
        except (SnapshotFileError, SnapshotError) as error:
            _log.error("snapshot_refused", origin=origin, problem=str(error))
            return 0
        points = [point for point in header.publishers if point.name in names]
        for name in names - {point.name for point in points}:
            self._core.remove_publisher(name)
        for point in points:
            self._ingest.resume_from(point)
        age_s = round(self._wall() - header.created, 3)
        _log.info("snapshot_restored", origin=origin, publishers=len(points), bytes=len(data), age_s=age_s)
        return len(points)

    def _read(self) -> bytes | None:
        if self._directory is None:
            return None
        try:
            return read_snapshot(self._directory)
        except SnapshotFileError as error:
            _log.error("snapshot_refused", origin=str(self._directory), problem=str(error))
            return None

    async def _fetch(self, peer: str) -> bytes | None:
        try:
            async with AsyncIndexClient(peer, token=self._token(), timeout_s=PEER_TIMEOUT_S) as index:
                return await index.snapshot()
        except IndexClientError as error:
            _log.error("bootstrap_failed", peer=peer, problem=str(error))
            return None
