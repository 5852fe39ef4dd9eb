"""InferencePools for fronts: the endpoints of one pool, kept up to date by watches.

The pods are watched and read as discovery does for the index, so an endpoint has the name of its publisher. Importing
this module loads the Kubernetes client; a front imports it when it is asked to follow a pool.
"""

from collections.abc import Callable

from kubernetes import client

from kvsync_indexer.discovery.asking import SourceAsker
from kvsync_indexer.discovery.connecting import connect, own_namespace
from kvsync_indexer.discovery.poolendpoints import PoolEndpoint, PoolMembers
from kvsync_indexer.discovery.poolpods import PoolPods


class PoolFollower:
    """Follows one pool from `start` to `stop`, in threads of its own. `endpoints` may be called from any thread."""

    def __init__(
        self,
        name: str,
        namespace: str | None = None,
        *,
        flag: str = "--pool-name",
        api: client.CoreV1Api | None = None,
        asker: SourceAsker | None = None,
    ) -> None:
        """Without a namespace, that of the process. Raises ConfigError, which names `flag`, without credentials."""
        self._asker = asker or SourceAsker()
        self._on_change: Callable[[], None] = lambda: None
        self._members = PoolMembers(self._changed, self._asker)
        core = api or connect(flag)
        self.name, self.namespace = name, namespace or own_namespace()
        self._pods = PoolPods(core, self._members, name=name, namespace=self.namespace, on_pool=self._members.take_pool)

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin to watch. `on_change` is called in other threads, after every change of pods or pool."""
        self._on_change = on_change
        self._asker.start()
        self._pods.start()

    def stop(self) -> None:
        """End the watches."""
        self._asker.stop()
        self._pods.stop()

    def endpoints(self) -> list[PoolEndpoint] | None:
        """Every endpoint of the pool; None while the API server has not told them."""
        return self._members.endpoints()

    def problem(self) -> str | None:
        """Why the pool or its pods cannot be watched at the moment, if so."""
        watches = (self._pods.pool, *self._pods.watchers)
        told = next((watch.problem for watch in watches if watch.problem is not None), None)
        return told or next(iter(self._pods.pool.table.problems.values()), None)

    def _changed(self) -> None:
        self._on_change()
