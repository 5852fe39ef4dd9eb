"""Follows the pods that an InferencePool selects: one watch on the pool, and one on the pods of its selector.

While the pool cannot be read, its last known selector stays. A pool that is deleted has no pods.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from kubernetes import client

from kvsync_indexer.discovery.pool import POOL_GROUP, POOL_PLURAL, POOL_VERSION, PoolSpec, PoolTable
from kvsync_indexer.discovery.watcher import PodWatcher, Watcher, WatchTable


class _Gate:
    """Passes on what a watch delivers until it is closed, so that a watch that ends late changes nothing."""

    def __init__(self, table: WatchTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._open = True

    @property
    def problems(self) -> dict[str, str]:
        return self._table.problems

    def replace(self, items: Iterable[Any]) -> None:
        with self._lock:
            if self._open:
                self._table.replace(items)

    def changed(self, item: Any) -> None:  # noqa: ANN401
        with self._lock:
            if self._open:
                self._table.changed(item)

    def deleted(self, item: Any) -> None:  # noqa: ANN401
        with self._lock:
            if self._open:
                self._table.deleted(item)

    def close(self) -> None:
        with self._lock:
            self._open = False


class PoolPods:
    """Keeps `table` at the pods of one pool until it is stopped."""

    def __init__(
        self,
        api: client.CoreV1Api,
        table: WatchTable,
        *,
        name: str,
        namespace: str,
        on_pool: Callable[[PoolSpec | None], None] = lambda _pool: None,
    ) -> None:
        """`on_pool` gets every version of the pool, in the thread of its watch, before the pods change."""
        self._api = api
        self._table = table
        self._namespace = namespace
        self._on_pool = on_pool
        self._lock = threading.Lock()
        self._stopped = False
        self._gate: _Gate | None = None
        self._pods: PodWatcher | None = None
        self._selector: str | None = None
        custom = client.CustomObjectsApi(api.api_client)

        def call(**how: Any) -> Any:  # noqa: ANN401  urllib3's response
            return custom.list_namespaced_custom_object(
                POOL_GROUP, POOL_VERSION, namespace, POOL_PLURAL, field_selector=f"metadata.name={name}", **how
            )

        self.pool = Watcher(call, PoolTable(name, self._changed), kind=POOL_PLURAL, namespace=namespace)
        """The watch on the pool."""

    def start(self) -> None:
        """Start to watch the pool."""
        self.pool.start()

    def stop(self) -> None:
        """End both watches."""
        with self._lock:
            self._stopped = True
            pods = self._pods
        self.pool.stop()
        if pods is not None:
            pods.stop()

    @property
    def watchers(self) -> list[Watcher]:
        """The watch on the pods, while there is a pool."""
        pods = self._pods
        return [] if pods is None else [pods]

    @property
    def synced(self) -> bool:
        """Whether the pool is known to be missing, or its pods have been listed."""
        return self.pool.synced.is_set() and all(pods.synced.is_set() for pods in self.watchers)

    def _changed(self, pool: PoolSpec | None) -> None:
        self._on_pool(pool)
        selector = None if pool is None else pool.selector
        with self._lock:
            if self._stopped or selector == self._selector:
                return
            self._selector = selector
            self._end_pods()
            if selector is None:
                self._table.replace([])
                return
            self._gate = _Gate(self._table)
            self._pods = PodWatcher(self._api, self._gate, namespace=self._namespace, selector=selector)
            self._pods.start()

    def _end_pods(self) -> None:
        if self._gate is not None and self._pods is not None:
            self._gate.close()
            self._pods.stop(timeout_s=0)
        self._gate = self._pods = None
