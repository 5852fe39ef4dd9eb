"""The endpoints of an InferencePool: every target port of every pod, under the names that its publishers have.

The names are those of the index because the same table reads the pods. A pod that the index cannot follow is an
endpoint all the same; it is then named after the pod and the position of the port.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from kvsync_indexer.discovery.asking import Answer, Deliver
from kvsync_indexer.discovery.podfields import has_left, is_ready
from kvsync_indexer.discovery.pool import PoolSpec
from kvsync_indexer.discovery.table import Asker, PodTable
from kvsync_indexer.publishers import PublisherSpec


@dataclass(frozen=True, slots=True)
class PoolEndpoint:
    """One address of one pod of the pool, or one rank behind it if several share the address."""

    name: str
    model: str
    """Model by the pod's arguments, annotations or labels; empty if they do not tell."""
    http_url: str
    rank: int
    http_rank: int | None
    ready: bool


@dataclass(frozen=True, slots=True)
class Member:
    """What a pool needs of one pod that has an address and is not leaving."""

    name: str
    host: str
    ready: bool


def member_of(pod: Any) -> Member | None:  # noqa: ANN401
    """Read a pod; None for one without an address, one that leaves, and one that cannot be read."""
    try:
        address = (pod.get("status") or {}).get("podIP")
        if not address or has_left(pod):
            return None
        host = f"[{address}]" if ":" in str(address) else str(address)
        return Member(str(pod["metadata"]["name"]), host, is_ready(pod["status"]))
    except (AttributeError, KeyError, TypeError):
        return None


def endpoints_of(member: Member, ports: tuple[int, ...], specs: list[PublisherSpec]) -> list[PoolEndpoint]:
    """The endpoints of one pod, whose publishers are `specs`. A port without a publisher is an endpoint as well."""
    taken = {spec.name for spec in specs}
    model = specs[0].model if specs else ""
    found = []
    for position, (port, here) in enumerate(zip(ports, _by_port(member, ports, specs), strict=True)):
        url = f"http://{member.host}:{port}"
        found += [PoolEndpoint(spec.name, spec.model, url, spec.rank, spec.http_rank, member.ready) for spec in here]
        if not here:
            name = member.name if len(ports) == 1 else f"{member.name}/{position}"
            name = f"{member.name}:{port}" if name in taken else name
            found.append(PoolEndpoint(name, model, url, position, None, member.ready))
    return found


def _by_port(member: Member, ports: tuple[int, ...], specs: list[PublisherSpec]) -> list[list[PublisherSpec]]:
    """The publishers behind each port: those with its URL, as far as the pod's own settings tell the URLs.

    They do not if all publishers share one URL while there are as many ports as publishers, or if no URL is one of the
    pool, as behind a proxy in the pod. Then a sole port leads to all of them, and several ports are ranks in order.
    """
    ordered = sorted(specs, key=lambda spec: spec.rank)
    by_url = [[spec for spec in ordered if spec.http_url == f"http://{member.host}:{port}"] for port in ports]
    told = any(by_url) and not (len(ports) == len(ordered) > 1 and len({spec.http_url for spec in ordered}) == 1)
    if not told and len(ports) == 1:
        return [ordered]
    if not told and len(ports) == len(ordered):
        return [[spec] for spec in ordered]
    return by_url


class PoolMembers:
    """The pods of a pool together with their publishers, from the thread of a watch to any other thread.

    A pod appears after its publishers are known and leaves before they do, so its endpoints do not change their names.
    The lock is never held while the table of publishers is called, which calls back from other threads.
    """

    def __init__(self, on_change: Callable[[], None], asker: Asker | None = None) -> None:
        self._on_change = on_change
        self._lock = threading.Lock()
        self._ports: tuple[int, ...] | None = None
        self._members: dict[str, Member] = {}
        self._specs: dict[str, PublisherSpec] = {}
        self._listed = False
        self._publishers = PodTable(
            self, qualified=False, asker=None if asker is None else _Announced(asker, on_change)
        )

    @property
    def problems(self) -> dict[str, str]:
        """Why the index cannot follow a pod of the pool, by `namespace/name`."""
        return self._publishers.problems

    def endpoints(self) -> list[PoolEndpoint] | None:
        """Every endpoint by name; None before the pool and its pods are known."""
        with self._lock:
            if self._ports is None:
                return [] if self._listed else None
            if not self._listed:
                return None
            by_pod: dict[str, list[PublisherSpec]] = {}
            for spec in self._specs.values():
                by_pod.setdefault(spec.pod, []).append(spec)
            members = sorted(self._members.values(), key=lambda member: member.name)
            return [each for one in members for each in endpoints_of(one, self._ports, by_pod.get(one.name, []))]

    def take_pool(self, pool: PoolSpec | None) -> None:
        """Take the ports of the pool, None if there is no pool."""
        with self._lock:
            self._ports = None if pool is None else pool.ports
        self._on_change()

    def replace(self, pods: Iterable[Any]) -> None:
        """Take a full list of pods."""
        pods = list(pods)
        members = {_uid(pod): member for pod in pods if (member := member_of(pod)) is not None}
        with self._lock:
            self._members = {uid: member for uid, member in self._members.items() if uid in members}
        self._publishers.replace(pods)
        with self._lock:
            self._members = members
            self._listed = True
        self._on_change()

    def changed(self, pod: Any) -> None:  # noqa: ANN401
        """Take a pod that was added or modified."""
        member = member_of(pod)
        if member is None:
            self._drop(_uid(pod))
        self._publishers.changed(pod)
        if member is not None:
            with self._lock:
                self._members[_uid(pod)] = member
        self._on_change()

    def deleted(self, pod: Any) -> None:  # noqa: ANN401
        """Take a pod that is gone, or that no longer matches."""
        self._drop(_uid(pod))
        self._publishers.deleted(pod)
        self._on_change()

    def add(self, spec: PublisherSpec) -> None:
        """Take a publisher of a pod."""
        with self._lock:
            self._specs[spec.name] = spec

    def remove(self, name: str) -> None:
        """Take the end of a publisher."""
        with self._lock:
            self._specs.pop(name, None)

    def _drop(self, uid: str) -> None:
        with self._lock:
            self._members.pop(uid, None)


class _Announced:
    """Asks engines, and announces each answer after the table has taken it."""

    def __init__(self, asker: Asker, on_change: Callable[[], None]) -> None:
        self._asker = asker
        self._on_change = on_change

    def ask(self, key: str, url: str, deliver: Deliver) -> None:
        def taken(key: str, answer: Answer) -> None:
            deliver(key, answer)
            self._on_change()

        self._asker.ask(key, url, taken)

    def forget(self, key: str) -> None:
        self._asker.forget(key)


def _uid(pod: Any) -> str:  # noqa: ANN401
    metadata = pod.get("metadata") if isinstance(pod, dict) else None
    return str(metadata.get("uid") or "") if isinstance(metadata, dict) else ""
