"""InferencePools of the Gateway API (`inference.networking.k8s.io/v1`): what one says about pods and ports.

A pool selects pods of its own namespace by labels. Each of its target ports is an endpoint of every pod, and with more
than one port, each is one data-parallel rank. Its fields are checked here once more, because the selector becomes part
of a query.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kvsync_indexer.discovery.limits import MAX_PROBLEM, quoted

_log = structlog.get_logger("kvsync_indexer.discovery")

POOL_GROUP, POOL_VERSION, POOL_PLURAL = "inference.networking.k8s.io", "v1", "inferencepools"
MAX_LABELS = 64
MAX_PORTS = 8
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class PoolError(ValueError):
    """The pool cannot be used; the message names the field."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What a pool says: a label selector in the form of a query, and the ports of each pod."""

    selector: str
    ports: tuple[int, ...]


def read_pool(pool: Mapping[str, Any]) -> PoolSpec:
    """The selector and the ports of a pool in the form of the API. Raises PoolError."""
    spec = pool.get("spec")
    if not isinstance(spec, Mapping):
        raise PoolError("spec is missing")
    return PoolSpec(_selector(spec.get("selector")), _ports(spec.get("targetPorts")))


def _selector(selector: object) -> str:
    labels = selector.get("matchLabels") if isinstance(selector, Mapping) else None
    if not isinstance(labels, Mapping) or not 1 <= len(labels) <= MAX_LABELS:
        raise PoolError(f"spec.selector.matchLabels must have 1 to {MAX_LABELS} labels")
    for key, value in labels.items():
        if not isinstance(value, str) or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise PoolError(f"spec.selector.matchLabels: {quoted(key)}: {quoted(value)} is not a label")
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _ports(ports: object) -> tuple[int, ...]:
    if not isinstance(ports, list) or not 1 <= len(ports) <= MAX_PORTS:
        raise PoolError(f"spec.targetPorts must have 1 to {MAX_PORTS} ports")
    numbers: list[int] = []
    for port in ports:
        number = port.get("number") if isinstance(port, Mapping) else None
        if type(number) is not int or not 1 <= number <= 65535:
            raise PoolError(f"spec.targetPorts: {quoted(number)} is not a port number")
        numbers.append(number)
    if len(set(numbers)) < len(numbers):
        raise PoolError("spec.targetPorts names a port twice")
    return tuple(numbers)


class PoolTable:
    """The one pool of a watch. A version of it that cannot be read changes nothing."""

    def __init__(self, name: str, on_change: Callable[[PoolSpec | None], None]) -> None:
        """`on_change` gets the pool whenever it differs, and None when there is none any more."""
        self._name = name
        self._on_change = on_change
        self._spec: PoolSpec | None = None
        self._problem: str | None = f"there is no InferencePool {name}"

    @property
    def problems(self) -> dict[str, str]:
        """Why the pool cannot be used, if so."""
        problem = self._problem
        return {} if problem is None else {f"pool {self._name}": problem}

    def replace(self, pools: Iterable[Any]) -> None:
        """Take a full list of pools."""
        mine = [pool for pool in pools if self._is_mine(pool)]
        if mine:
            self._take(mine[0])
        else:
            self._forget()

    def changed(self, pool: Any) -> None:  # noqa: ANN401
        """Take a pool that was added or modified."""
        if self._is_mine(pool):
            self._take(pool)

    def deleted(self, pool: Any) -> None:  # noqa: ANN401
        """Take a pool that is gone."""
        if self._is_mine(pool):
            self._forget()

    def _is_mine(self, pool: object) -> bool:
        metadata = pool.get("metadata") if isinstance(pool, Mapping) else None
        return isinstance(metadata, Mapping) and metadata.get("name") == self._name

    def _take(self, pool: Mapping[str, Any]) -> None:
        try:
            spec = read_pool(pool)
        except PoolError as error:
            self._problem = str(error)[:MAX_PROBLEM]
            _log.warning("pool_not_read", pool=self._name, reason=self._problem)
            return
        self._problem = None
        self._set(spec)

    def _forget(self) -> None:
        self._problem = f"there is no InferencePool {self._name}"
        self._set(None)

    def _set(self, spec: PoolSpec | None) -> None:
        if spec != self._spec:
            self._spec = spec
            _log.info("pool_changed", pool=self._name, selector=spec and spec.selector, ports=spec and spec.ports)
            self._on_change(spec)
