"""Discovery as the service runs it: one watcher per namespace, or the watches of an InferencePool."""

from kubernetes import client

from kvsync_indexer.discovery.asking import SourceAsker
from kvsync_indexer.discovery.connecting import connect, own_namespace
from kvsync_indexer.discovery.poolpods import PoolPods
from kvsync_indexer.discovery.table import PodTable
from kvsync_indexer.discovery.watcher import PodWatcher, Watcher
from kvsync_indexer.publishers import PublisherSink

ALL_NAMESPACES = "*"
MAX_SHOWN = 100


class KubernetesDiscovery:
    """Finds publishers until stopped."""

    def __init__(
        self,
        sink: PublisherSink,
        *,
        selector: str,
        namespaces: tuple[str, ...] = (),
        pool: str | None = None,
        api: client.CoreV1Api | None = None,
        asker: SourceAsker | None = None,
    ) -> None:
        """With `pool`, the pods of that InferencePool in the one namespace; `selector` is then not used.

        Raises ConfigError if there are no credentials.
        """
        core = api or connect("--discover kubernetes")
        wanted = namespaces or (own_namespace(),)
        self._asker = asker or SourceAsker()
        self._pool: PoolPods | None = None
        self._scopes: list[PodWatcher] = []
        if pool is not None:
            self._pool = PoolPods(core, self._table(sink), name=pool, namespace=wanted[0])
            return
        scopes: list[str | None] = [None] if ALL_NAMESPACES in wanted else list(dict.fromkeys(wanted))
        qualified = len(scopes) > 1 or scopes == [None]
        self._scopes = [
            PodWatcher(core, self._table(sink, qualified=qualified), namespace=scope, selector=selector)
            for scope in scopes
        ]

    def _table(self, sink: PublisherSink, *, qualified: bool = False) -> PodTable:
        return PodTable(sink, qualified=qualified, asker=self._asker)

    def start(self) -> None:
        """Start every watch."""
        self._asker.start()
        for one in (self._pool, *self._scopes):
            if one is not None:
                one.start()

    def stop(self) -> None:
        """Stop every watch."""
        self._asker.stop()
        for one in (self._pool, *self._scopes):
            if one is not None:
                one.stop()

    @property
    def synced(self) -> bool:
        """Whether the pods of every namespace, or of the pool, have been listed once."""
        listed = all(watcher.synced.is_set() for watcher in self._scopes)
        return listed and (self._pool is None or self._pool.synced)

    @property
    def problems(self) -> dict[str, str]:
        """What prevents a namespace from being watched or a pod from being followed, by its name.

        Of the pods, at most MAX_SHOWN are named; `problem_count` has the whole number.
        """
        found: dict[str, str] = {}
        for watcher in self._all:
            if watcher.problem is not None:
                scope = f"namespace {watcher.namespace or ALL_NAMESPACES}"
                found[scope if watcher.kind == "pods" else f"{watcher.kind} of {scope}"] = watcher.problem
        pods = [item for watcher in self._all for item in watcher.table.problems.items()]
        found.update(pods[:MAX_SHOWN])
        if len(pods) > MAX_SHOWN:
            found["further pods"] = f"{len(pods) - MAX_SHOWN} more pods cannot be followed; the log names them"
        return found

    @property
    def problem_count(self) -> int:
        """Number of namespaces that are not watched and pods that are not followed."""
        return sum(len(watcher.table.problems) + (watcher.problem is not None) for watcher in self._all)

    def health_problem(self) -> str | None:
        """Why discovery no longer works and the process should be restarted; None if it works."""
        return next((problem for watcher in self._all if (problem := watcher.health_problem())), None)

    @property
    def watchers(self) -> list[Watcher]:
        """The watches on pods, one per namespace."""
        return [*self._scopes] if self._pool is None else self._pool.watchers

    @property
    def _all(self) -> list[Watcher]:
        return self.watchers if self._pool is None else [self._pool.pool, *self.watchers]
