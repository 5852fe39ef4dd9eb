"""The connector's configuration: by builder, by keyword arguments, or from vLLM's JSON."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Self

from kvsync_testkit.connector.leading import ConnectorLeader
from kvsync_testkit.connector.settings import ConnectorRole, ConnectorSettings, blocks_in
from kvsync_testkit.connector.transferjson import parse_transfer_config
from kvsync_testkit.connector.working import ConnectorWorker
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.naming import unknown_name
from kvsync_testkit.physical import LayoutConfig, standard_config
from kvsync_testkit.token_blocks import DEFAULT_BLOCK_SIZE

_DEFAULT_CACHE_GB: Final = 0.25


class ConnectorTestConfig:
    """Settings of a connector: a quarter of a GiB of host memory, one thread, POSIX transfers, unless changed."""

    __test__ = False  # for pytest, should its naming rules ever include this class

    def __init__(
        self,
        *,
        role: ConnectorRole | str = ConnectorRole.BOTH,
        leader_cache_gb: float | None = None,
        leader_cache_blocks: int | None = None,
        leader_disk_gb: float = 0.0,
        device_blocks: int = 64,
        worker_threads: int = 1,
        block_size: int = DEFAULT_BLOCK_SIZE,
        backends: Sequence[str] = ("POSIX",),
        layout: LayoutConfig | None = None,
    ) -> None:
        self._role = role
        self._cache_gb = leader_cache_gb
        self._cache_blocks = leader_cache_blocks
        self._disk_gb = leader_disk_gb
        self._device_blocks = device_blocks
        self._threads = worker_threads
        self._block_size = block_size
        self._backends = tuple(backends)
        self._layout = layout

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The configuration in the form of vLLM's `--kv-transfer-config`.

        `kv_connector` and `kv_role` are required; `kv_connector_extra_config` takes the names of this class's keyword
        arguments, `role` and `layout` apart.

        Raises:
            ConfigurationError: not a JSON object, an unknown key (the nearest valid one is named), a value of the wrong
                type, or keys that contradict each other.
        """
        config = cls(**parse_transfer_config(text))
        config.settings()
        return config

    def role(self, role: ConnectorRole | str) -> Self:
        """Producer, consumer or both."""
        self._role = role
        return self

    def leader_cache_gb(self, gigabytes: float) -> Self:
        """Host memory of each worker in GiB; the number of blocks follows from their shape."""
        self._cache_gb = gigabytes
        return self

    def leader_cache_blocks(self, blocks: int) -> Self:
        """Host memory in blocks, instead of GiB."""
        self._cache_blocks = blocks
        return self

    def leader_disk_gb(self, gigabytes: float) -> Self:
        """Disk of each worker in GiB."""
        self._disk_gb = gigabytes
        return self

    def device_blocks(self, blocks: int) -> Self:
        """Blocks of each worker's device layout."""
        self._device_blocks = blocks
        return self

    def worker_threads(self, threads: int) -> Self:
        """Transfers that one worker makes at the same time."""
        self._threads = threads
        return self

    def block_size(self, tokens: int) -> Self:
        """Tokens per block."""
        self._block_size = tokens
        return self

    def backends(self, *names: str) -> Self:
        """Transfer backends that workers must have."""
        self._backends = names
        return self

    def layout(self, shape: LayoutConfig) -> Self:
        """The shape of one worker's blocks; its page size must be the block size."""
        self._layout = shape
        return self

    def settings(self) -> ConnectorSettings:
        """Everything together, validated.

        Raises:
            ConfigurationError: a value is out of range, or two settings contradict each other.
        """
        if self._cache_gb is not None and self._cache_blocks is not None:
            raise ConfigurationError("leader_cache_gb contradicts leader_cache_blocks: give one of them")
        if self._role not in set(ConnectorRole):
            raise unknown_name("role", str(self._role), list(ConnectorRole))
        shape = self._layout or replace(standard_config(1), page_size=self._block_size)
        if shape.page_size != self._block_size:
            raise ConfigurationError(
                f"block_size {self._block_size} contradicts a layout of {shape.page_size} per page"
            )
        gigabytes = _DEFAULT_CACHE_GB if self._cache_gb is None else self._cache_gb
        return ConnectorSettings(
            role=ConnectorRole(self._role),
            host_blocks=blocks_in(gigabytes, shape) if self._cache_blocks is None else self._cache_blocks,
            disk_blocks=blocks_in(self._disk_gb, shape),
            device_blocks=self._device_blocks,
            worker_threads=self._threads,
            backends=self._backends,
            shape=shape,
        )

    def build_leader(self) -> ConnectorLeader:
        """The leader: tables only, no bytes.

        Raises:
            ConfigurationError: as `settings`.
        """
        return ConnectorLeader(self.settings())

    def build_worker(self) -> ConnectorWorker:
        """A worker: layouts, an agent and threads.

        Raises:
            ConfigurationError: as `settings`.
            BackendUnavailableError: this machine lacks one of the backends.
        """
        return ConnectorWorker(self.settings())
