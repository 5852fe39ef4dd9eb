"""A worker: the bytes, and threads that copy them."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from kvsync_testkit.agents import AgentBuilder
from kvsync_testkit.connector.settings import ConnectorSettings
from kvsync_testkit.physical import LayoutKind, StorageKind, create_layout


class ConnectorWorker:
    """Device and host layouts of one worker. A context manager that waits for transfers and gives the memory back.

    Attributes:
        settings: What it was built from.
        device: The blocks that an engine would compute on, layer-wise (here in ordinary memory).
        host: The blocks of the leader's G2, fully contiguous. Memory is taken from the system as it is written.
        agent: Moves the bytes.
    """

    def __init__(self, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.agent = AgentBuilder("worker", required=settings.backends).build()
        self.device = create_layout(settings.shape.with_blocks(settings.device_blocks), LayoutKind.LAYER_WISE)
        try:
            self.host = create_layout(settings.shape.with_blocks(settings.host_blocks), storage=StorageKind.SYSTEM)
        except BaseException:
            self.device.close()
            raise
        self._threads = ThreadPoolExecutor(settings.worker_threads, "kvsync-connector")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def save(self, device_ids: Sequence[int], host_ids: Sequence[int]) -> "Future[int]":
        """Copy blocks to host memory by position; the future has the number of bytes, or a TransferError."""
        return self._threads.submit(self.agent.transfer, self.device, device_ids, self.host, host_ids)

    def load(self, host_ids: Sequence[int], device_ids: Sequence[int]) -> "Future[int]":
        """Copy blocks to the device by position; the future has the number of bytes, or a TransferError."""
        return self._threads.submit(self.agent.transfer, self.host, host_ids, self.device, device_ids)

    def close(self) -> None:
        """Finish the transfers under way and give the memory back."""
        self._threads.shutdown()
        self.device.close()
        self.host.close()
