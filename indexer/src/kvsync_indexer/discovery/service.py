"""Discovery as the service runs it: credentials, and one watcher per namespace."""

from pathlib import Path

import structlog
from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from kvsync_indexer.discovery.asking import SourceAsker
from kvsync_indexer.discovery.table import PodTable
from kvsync_indexer.discovery.watcher import PodWatcher
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.publishers import PublisherSink

_log = structlog.get_logger("kvsync_indexer.discovery")
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
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
        api: client.CoreV1Api | None = None,
        asker: SourceAsker | None = None,
    ) -> None:
        """Raises ConfigError if there are no credentials."""
        core = api or _connect()
        wanted = namespaces or (_own_namespace(),)
        scopes: list[str | None] = [None] if ALL_NAMESPACES in wanted else list(dict.fromkeys(wanted))
        qualified = len(scopes) > 1 or scopes == [None]
        self._asker = asker or SourceAsker()
        self._watchers = [
            PodWatcher(core, PodTable(sink, qualified=qualified, asker=self._asker), namespace=scope, selector=selector)
            for scope in scopes
        ]

    def start(self) -> None:
        """Start every watcher."""
        self._asker.start()
        for watcher in self._watchers:
            watcher.start()

    def stop(self) -> None:
        """Stop every watcher."""
        self._asker.stop()
        for watcher in self._watchers:
            watcher.stop()

    @property
    def synced(self) -> bool:
        """Whether the pods of every namespace have been listed once."""
        return all(watcher.synced.is_set() for watcher in self._watchers)

    @property
    def problems(self) -> dict[str, str]:
        """What prevents a namespace from being watched or a pod from being followed, by its name.

        Of the pods, at most MAX_SHOWN are named; `problem_count` has the whole number.
        """
        found: dict[str, str] = {}
        for watcher in self._watchers:
            if watcher.problem is not None:
                found[f"namespace {watcher.namespace or ALL_NAMESPACES}"] = watcher.problem
        pods = [item for watcher in self._watchers for item in watcher.table.problems.items()]
        found.update(pods[:MAX_SHOWN])
        if len(pods) > MAX_SHOWN:
            found["further pods"] = f"{len(pods) - MAX_SHOWN} more pods cannot be followed; the log names them"
        return found

    @property
    def problem_count(self) -> int:
        """Number of namespaces that are not watched and pods that are not followed."""
        return sum(len(watcher.table.problems) + (watcher.problem is not None) for watcher in self._watchers)

    def health_problem(self) -> str | None:
        """Why discovery no longer works and the process should be restarted; None if it works."""
        return next((problem for watcher in self._watchers if (problem := watcher.health_problem())), None)

    @property
    def watchers(self) -> list[PodWatcher]:
        """One watcher per namespace."""
        return self._watchers


def _connect() -> client.CoreV1Api:
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except ConfigException:
        try:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            problem = " ".join(str(error).split())
            raise ConfigError(
                f"--discover kubernetes: no service account and no usable kubeconfig: {problem}"
            ) from None
    settings = client.Configuration.get_default_copy()
    settings.retries = False
    return client.CoreV1Api(client.ApiClient(settings))


def _own_namespace() -> str:
    try:
        return _OWN_NAMESPACE.read_text().strip()
    except OSError:
        pass
    try:
        _, active = config.list_kube_config_contexts()  # type: ignore[no-untyped-call]
        return str((active.get("context") or {}).get("namespace") or "default")
    except (ConfigException, OSError, AttributeError):
        return "default"
