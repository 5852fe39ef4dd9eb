"""The pods of one watch, and what changes for the index with them. It has no client, no clock and no thread."""

from collections.abc import Iterable

import structlog

from kvsync_indexer.discovery.pods import Pod, PodError, has_left, pod_publishers
from kvsync_indexer.publishers import PublisherSink, PublisherSpec

_log = structlog.get_logger("kvsync_indexer.discovery")


class PodTable:
    """Turns lists of pods and single changes into additions and removals of publishers."""

    def __init__(self, sink: PublisherSink, *, qualified: bool) -> None:
        self._sink = sink
        self._qualified = qualified
        self._specs: dict[str, dict[str, PublisherSpec]] = {}
        self._gone: set[str] = set()
        self.problems: dict[str, str] = {}
        """Why a pod that matches the selector is not followed, by `namespace/name`."""

    def __len__(self) -> int:
        return len(self._specs)

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take a full list of pods; every other pod is gone."""
        seen = set()
        for pod in pods:
            seen.add(_uid(pod))
            self.changed(pod)
        for uid in [uid for uid in self._specs if uid not in seen]:
            self._drop(uid)
        self._gone &= seen

    def changed(self, pod: Pod) -> None:
        """Take a pod that was added or modified."""
        uid, where = _uid(pod), _where(pod)
        if uid in self._gone:
            return  # a late event of a pod that is already gone
        if has_left(pod):
            self._gone.add(uid)
            self._drop(uid)
            self.problems.pop(where, None)
            return
        try:
            specs = {spec.name: spec for spec in pod_publishers(pod, qualified=self._qualified)}
        except PodError as error:
            if self.problems.get(where) != str(error):
                _log.warning("pod_not_followed", pod=where, reason=str(error))
            self.problems[where] = str(error)
            self._drop(uid)
            return
        self.problems.pop(where, None)
        self._update(uid, specs)

    def deleted(self, pod: Pod) -> None:
        """Take a pod that is gone, or that no longer matches the selector."""
        self._drop(_uid(pod))
        self._gone.discard(_uid(pod))
        self.problems.pop(_where(pod), None)

    def _update(self, uid: str, specs: dict[str, PublisherSpec]) -> None:
        before = self._specs.get(uid, {})
        for name in before.keys() - specs.keys():
            self._remove(uid, name)
        if specs:
            self._specs[uid] = specs
        else:
            self._specs.pop(uid, None)
        for name, spec in specs.items():
            if before.get(name) != spec:
                self._sink.add(spec)

    def _drop(self, uid: str) -> None:
        for name in list(self._specs.get(uid, ())):
            self._remove(uid, name)
        self._specs.pop(uid, None)

    def _remove(self, uid: str, name: str) -> None:
        """Remove a publisher, unless another pod (the next one of a StatefulSet) already uses its name."""
        if not any(name in specs for other, specs in self._specs.items() if other != uid):
            self._sink.remove(name)


def _uid(pod: Pod) -> str:
    return str(pod["metadata"]["uid"])


def _where(pod: Pod) -> str:
    return f"{pod['metadata'].get('namespace', '')}/{pod['metadata']['name']}"
