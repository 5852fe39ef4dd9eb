"""The pods of one watch, and what changes for the index with them. It has no client, no clock and no thread.

Pods come from the watch thread, and the answers of engines from others. Whatever is wrong with one pod concerns that
pod only: it becomes a problem with the pod's name, and the pods after it are read as usual.
"""

import threading
from collections.abc import Iterable
from typing import Protocol

import structlog

from kvsync_indexer.discovery.asking import Answer, Deliver
from kvsync_indexer.discovery.limits import MAX_PROBLEM
from kvsync_indexer.discovery.podfields import Pod, PodError, has_left
from kvsync_indexer.discovery.pods import PodReading, read_pod
from kvsync_indexer.publishers import PublisherSink, PublisherSpec

_log = structlog.get_logger("kvsync_indexer.discovery")
UNREADABLE = "pod without a name"


class Asker(Protocol):
    """Asks an engine for its event sources."""

    def ask(self, key: str, url: str, deliver: Deliver) -> None: ...  # noqa: D102
    def forget(self, key: str) -> None: ...  # noqa: D102


class PodTable:
    """Turns lists of pods and single changes into additions and removals of publishers."""

    def __init__(self, sink: PublisherSink, *, qualified: bool, asker: Asker | None = None) -> None:
        """Without an `asker`, only annotations, arguments and labels decide."""
        self._sink = sink
        self._qualified = qualified
        self._asker = asker
        self._lock = threading.RLock()
        self._specs: dict[str, dict[str, PublisherSpec]] = {}
        self._pods: dict[str, Pod] = {}
        """The pods whose engine has been asked, as last seen, by UID."""
        self._answers: dict[str, tuple[str, Answer | None]] = {}
        """(identity, answer or None while it is awaited) by UID."""
        self._gone: set[str] = set()
        self._problems: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._specs)

    @property
    def problems(self) -> dict[str, str]:
        """Why a pod that matches the selector is not followed, by `namespace/name`."""
        with self._lock:
            return dict(self._problems)

    def replace(self, pods: Iterable[Pod]) -> None:
        """Take a full list of pods; every other pod is gone."""
        with self._lock:
            seen: set[str] = set()
            before, self._problems = self._problems, {}
            for pod in pods:
                uid = _uid(pod)
                if uid is not None:
                    seen.add(uid)
                self._take(pod, before)
            for uid in [uid for uid in {*self._specs, *self._answers} if uid not in seen]:
                self._drop(uid)
            self._gone &= seen

    def changed(self, pod: Pod) -> None:
        """Take a pod that was added or modified."""
        with self._lock:
            self._take(pod, self._problems)

    def deleted(self, pod: Pod) -> None:
        """Take a pod that is gone, or that no longer matches the selector."""
        with self._lock:
            uid = _uid(pod)
            if uid is not None:
                self._drop(uid)
                self._gone.discard(uid)
            self._problems.pop(_where(pod), None)

    def answered(self, uid: str, answer: Answer) -> None:
        """Take an engine's answer about its event sources."""
        with self._lock:
            pod, asked = self._pods.get(uid), self._answers.get(uid)
            if pod is not None and asked is not None:
                self._answers[uid] = (asked[0], answer)
                self._take(pod, self._problems)

    def _take(self, pod: Pod, known: dict[str, str]) -> None:
        """Read a pod. Its problem is logged if it is not `known` already."""
        where, uid = _where(pod), _uid(pod)
        try:
            if uid is None:
                raise PodError("the pod has no UID")
            if uid in self._gone:
                return  # a late event of a pod that is already gone
            if has_left(pod):
                self._gone.add(uid)
                self._drop(uid)
                self._problems.pop(where, None)
                return
            specs = self._read(uid, pod)
        except PodError as error:
            self._refuse(where, uid, str(error), known)
        except Exception as error:  # noqa: BLE001  the pod's own data are wrong in a way that nothing foresees
            self._refuse(where, uid, f"the pod cannot be read: {type(error).__name__}: {error}", known)
        else:
            self._problems.pop(where, None)
            self._update(uid, specs)

    def _read(self, uid: str, pod: Pod) -> dict[str, PublisherSpec]:
        reading = read_pod(pod)
        if reading is None:
            return {}
        answer = self._answer(uid, pod, reading)
        if answer is not None and answer.problem is not None:
            raise PodError(answer.problem)
        sources = answer.sources if answer is not None else None
        return {spec.name: spec for spec in reading.publishers(sources, qualified=self._qualified)}

    def _answer(self, uid: str, pod: Pod, reading: PodReading) -> Answer | None:
        """What the engine answered, None if it need not be asked or has not answered yet."""
        identity, known = reading.identity, self._answers.get(uid)
        if known is not None and known[0] == identity:
            self._pods[uid] = pod
            return known[1]
        if known is not None:
            self._forget(uid)
        url = reading.question() if self._asker is not None else None
        if url is not None and self._asker is not None:
            self._answers[uid] = (identity, None)
            self._pods[uid] = pod
            self._asker.ask(uid, url, self.answered)
        return None

    def _refuse(self, where: str, uid: str | None, problem: str, known: dict[str, str]) -> None:
        reason = " ".join(problem.split())[:MAX_PROBLEM]
        if known.get(where) != reason:
            _log.warning("pod_not_followed", pod=where, reason=reason)
        self._problems[where] = reason
        if uid is not None:
            self._drop_publishers(uid)

    def _update(self, uid: str | None, specs: dict[str, PublisherSpec]) -> None:
        if uid is None:
            return
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
        self._forget(uid)
        self._drop_publishers(uid)

    def _forget(self, uid: str) -> None:
        self._pods.pop(uid, None)
        if self._answers.pop(uid, None) is not None and self._asker is not None:
            self._asker.forget(uid)

    def _drop_publishers(self, uid: str) -> None:
        for name in list(self._specs.get(uid, ())):
            self._remove(uid, name)
        self._specs.pop(uid, None)

    def _remove(self, uid: str, name: str) -> None:
        """Remove a publisher, unless another pod (the next one of a StatefulSet) already uses its name."""
        if not any(name in specs for other, specs in self._specs.items() if other != uid):
            self._sink.remove(name)


def _metadata(pod: object) -> dict[str, object]:
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    return metadata if isinstance(metadata, dict) else {}


def _uid(pod: object) -> str | None:
    uid = _metadata(pod).get("uid")
    return uid if isinstance(uid, str) and uid else None


def _where(pod: object) -> str:
    """`namespace/name`, or a fixed text, so that nameless pods take one entry among the problems."""
    metadata = _metadata(pod)
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        return UNREADABLE
    return f"{metadata.get('namespace') or ''}/{name}"[:MAX_PROBLEM]
