"""Making and filling pairs of instances."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Self

from kvsync_testkit.distributed.leader import InstanceLeader
from kvsync_testkit.distributed.workers import InstanceWorker
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.managers import ManagerBuilder, Tier, TierManager
from kvsync_testkit.physical import LayoutConfig, LayoutKind, StorageKind, standard_config
from kvsync_testkit.token_blocks import DEFAULT_BLOCK_SIZE, TokenBlock, create_token_sequence
from kvsync_testkit.transport import create_async_transport_pair


class LeaderPair:
    """The prefill and the decode side, connected; iterates over the two. An asynchronous context manager."""

    def __init__(self, prefill: InstanceLeader, decode: InstanceLeader) -> None:
        self.prefill = prefill
        self.decode = decode

    def __iter__(self) -> Iterator[InstanceLeader]:
        return iter((self.prefill, self.decode))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close both."""
        try:
            await self.prefill.close()
        finally:
            await self.decode.close()


class LeaderPairBuilder:
    """Settings of a pair: 32 blocks of 16 tokens per tier and one worker in system memory, unless changed."""

    def __init__(
        self,
        *,
        block_count: int = 32,
        block_size: int = DEFAULT_BLOCK_SIZE,
        num_workers: int = 1,
        layout: LayoutConfig | None = None,
        layout_kind: LayoutKind = LayoutKind.FULLY_CONTIGUOUS,
        storage: StorageKind = StorageKind.SYSTEM,
    ) -> None:
        self._count = block_count
        self._size = block_size
        self._workers = num_workers
        self._layout = layout
        self._kind = layout_kind
        self._storage = storage

    def block_count(self, blocks: int) -> Self:
        """Blocks in each of G2 and G3, on either side."""
        self._count = blocks
        return self

    def block_size(self, tokens: int) -> Self:
        """Tokens per block."""
        self._size = tokens
        return self

    def workers(self, workers: int) -> Self:
        """Workers on either side."""
        self._workers = workers
        return self

    def layout(self, config: LayoutConfig, kind: LayoutKind = LayoutKind.FULLY_CONTIGUOUS) -> Self:
        """The shape of each worker's blocks; its number of blocks is replaced by `block_count`."""
        self._layout = config
        self._kind = kind
        return self

    def storage(self, storage: StorageKind) -> Self:
        """Where G2 blocks lie; G3 is always files."""
        self._storage = storage
        return self

    async def build_async(self) -> LeaderPair:
        """The pair, connected over real sockets.

        Raises:
            ConfigurationError: no workers, or pages of another size than blocks.
            StorageUnavailableError: the system does not grant the storage.
        """
        shape = self._shape()
        transports = await create_async_transport_pair("prefill", "decode")
        with ExitStack() as undo:
            for transport in transports:
                undo.callback(transport.close)
            sides = [self._open_workers(shape, undo) for _ in transports]
            prefill, decode = (
                InstanceLeader(transport, self._manager(Tier.G2), self._manager(Tier.G3), workers)
                for transport, workers in zip(transports, sides, strict=True)
            )
            undo.pop_all()
        return LeaderPair(prefill, decode)

    def _shape(self) -> LayoutConfig:
        if self._workers < 1:
            raise ConfigurationError(f"{self._workers} workers: an instance needs at least one to hold bytes")
        shape = self._layout
        if shape is None:
            shape = replace(standard_config(self._count), page_size=self._size)
        if shape.page_size != self._size:
            raise ConfigurationError(f"a layout of {shape.page_size} tokens per page and blocks of {self._size} tokens")
        return shape.with_blocks(self._count)

    def _open_workers(self, shape: LayoutConfig, undo: ExitStack) -> list[InstanceWorker]:
        workers = []
        for index in range(self._workers):
            worker = InstanceWorker(index, shape, self._kind, self._storage, self._count)
            undo.callback(worker.close)
            workers.append(worker)
        return workers

    def _manager(self, tier: Tier) -> TierManager:
        return ManagerBuilder(tier, block_count=self._count, block_size=self._size).build()


async def create_instance_leader_pair(block_count: int = 32, block_size: int = DEFAULT_BLOCK_SIZE) -> LeaderPair:
    """Two connected instances (prefill, decode) with one worker each, blocks of the standard shape in system memory."""
    return await LeaderPairBuilder(block_count=block_count, block_size=block_size).build_async()


async def create_instance_leader_pair_with_workers(
    block_count: int = 32,
    block_size: int = DEFAULT_BLOCK_SIZE,
    num_workers: int = 2,
    layout: LayoutConfig | None = None,
    storage: StorageKind = StorageKind.SYSTEM,
    *,
    layout_kind: LayoutKind = LayoutKind.FULLY_CONTIGUOUS,
) -> LeaderPair:
    """The same with several workers, a layout and a storage kind of choice; see `LeaderPairBuilder`."""
    return await LeaderPairBuilder(
        block_count=block_count,
        block_size=block_size,
        num_workers=num_workers,
        layout=layout,
        layout_kind=layout_kind,
        storage=storage,
    ).build_async()


def populate_leader_with_blocks(
    leader: InstanceLeader,
    blocks: Sequence[TokenBlock] | int,
    *,
    start: int = 0,
    tier: Tier | str = Tier.G2,
    seed: int = 0,
) -> list[bytes]:
    """Give a leader blocks with known bytes: resident, findable, evictable, and written on every worker.

    Args:
        leader: Takes the blocks.
        blocks: The blocks, or a number of them: then a chain over the consecutive tokens from `start` on.
        start: First token of a chain that is made here.
        tier: G2 or G3.
        seed: Of the bytes. They follow from seed, block hash and worker, so a block has the same bytes in every tier.

    Returns:
        The digest of each block, in the order given.

    Raises:
        CapacityError: the tier has no room for all of them.
    """
    manager = leader.manager(tier)
    if isinstance(blocks, int):
        blocks = create_token_sequence(blocks, leader.g2.block_size, start)
    with manager.allocate(len(blocks)) as allocated:
        for worker in leader.workers:
            for block_id, block in zip(allocated.block_ids, blocks, strict=True):
                worker.write(manager.tier, block_id, block.hash, seed)
        with allocated.complete(blocks).register() as held:
            return list(held.hashes)
