"""Bugs of the kind that real indexes and routers have, planted into a running process; at least one for each invariant.

Each names the fault under which it shows and the invariant that must be reported as violated. `plant` replaces methods
of the classes that run in production; nothing in production knows of it. Bugs in what happens to single events need the
pure-Python core, because the native one cannot be changed from outside.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Method = Callable[..., Any]


@dataclass(frozen=True)
class Bug:
    """A bug, and how the suite must notice it."""

    invariant: str
    fault: str
    says: str
    """Part of the reason that the report must give."""
    plant: Callable[[], None]


def _replace(owner: type, name: str, build: Callable[[Method], Method]) -> None:
    """Replace a method by what `build` makes of it; a static method stays one."""
    static = isinstance(owner.__dict__[name], staticmethod)
    changed = build(getattr(owner, name))
    setattr(owner, name, staticmethod(changed) if static else changed)


def _python_core() -> type:
    sys.modules["kvsync_native"] = None  # type: ignore[assignment]  # makes the import fail
    from kvsync_indexer.core.python_core import PythonCore

    return PythonCore


def _apply_only(wanted: Callable[[Any], bool]) -> None:
    """Apply batches without the events that are not wanted."""

    def build(apply: Method) -> Method:
        def changed(core: Any, publisher: Any, batch: Any) -> Any:
            batch.events = [event for event in batch.events if wanted(event)]
            return apply(core, publisher, batch)

        return changed

    _replace(_python_core(), "_apply", build)


def _forget_short_events() -> None:
    """Prompts that share their beginning with another one store only their last blocks."""
    _apply_only(lambda event: len(getattr(event, "block_hashes", "abc")) != 2)


def _ignore_clears() -> None:
    _apply_only(lambda event: type(event).__name__ != "AllBlocksCleared")


def _keep_lost_blocks() -> None:
    _replace(_python_core(), "clear_publisher", lambda _clear: lambda _core, _publisher: 0)


def _judge(wrong: str) -> None:
    """Take batches that the position judges so for the next ones."""
    from kvsync_indexer.sync.position import Continuity, Position

    def build(judge: Method) -> Method:
        def changed(position: Any, seq: int, payload: bytes) -> Any:
            continuity = judge(position, seq, payload)
            return Continuity.NEXT if continuity is Continuity[wrong] else continuity

        return changed

    _replace(Position, "judge", build)


def _skip_the_gap_check() -> None:
    _judge("AHEAD")


def _apply_duplicates() -> None:
    _judge("DUPLICATE")


def _share_one_map() -> None:
    def build(apply: Method) -> Method:
        def changed(core: Any, publisher: str, payload: bytes) -> Any:
            for other in core.publishers():
                if other != publisher:
                    apply(core, other, payload)
            return apply(core, publisher, payload)

        return changed

    def one_by_one(_apply_many: Method) -> Method:
        def changed(core: Any, publisher: str, payloads: Any, budget: int | None = None) -> Any:
            del budget
            return core.apply(publisher, payloads[0])._replace(payloads=1)

        return changed

    core = _python_core()
    _replace(core, "apply", build)
    _replace(core, "apply_many", one_by_one)


def _keep_a_dead_epoch() -> None:
    from kvsync_indexer.sync.recovery import Recovery

    _replace(Recovery, "clear", lambda _clear: lambda _recovery, _reason: None)


def _match_one_block_more() -> None:
    def build(match: Method) -> Method:
        def changed(*arguments: Any) -> Any:
            found = match(*arguments)
            return [one._replace(blocks=one.blocks + 1, tokens=one.tokens + one.block_size) for one in found]

        return changed

    _replace(_python_core(), "match", build)


def _trust_the_silent() -> None:
    from kvsync_indexer.sync.machine import PublisherMachine

    _replace(PublisherMachine, "_check_stale", lambda _check: lambda _machine, _now: None)
    _replace(PublisherMachine, "disconnected", lambda _disconnected: lambda _machine, _link, _now: [])


def _keep_a_deleted_engine() -> None:
    from kvsync_indexer.ingest.thread import Ingest

    _replace(Ingest, "_remove", lambda _remove: lambda _ingest, _name: None)


def _leak_descriptors(most: int = 1200) -> None:
    from kvsync_indexer.sync.follower import Follower

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8 * most, hard), hard))
    leaked: list[int] = []

    def build(receive: Method) -> Method:
        def changed(*arguments: Any) -> Any:
            if len(leaked) < most:
                leaked.extend(os.dup(0) for _ in range(40))
            return receive(*arguments)

        return changed

    _replace(Follower, "receive", build)


def _wait_for_one_publisher(seconds: float = 2.0) -> None:
    from kvsync_indexer.sync.recovery import Recovery

    def build(open_gap: Method) -> Method:
        def changed(*arguments: Any) -> Any:
            time.sleep(seconds)  # in the thread that serves all publishers
            return open_gap(*arguments)

        return changed

    _replace(Recovery, "open_gap", build)


def _cling_to_a_deleted_engine() -> None:
    """The router sends requests where an engine was, and asks no other one if that fails."""
    from kvsync_router.decisions.endpoints import Endpoint, EndpointTable
    from kvsync_router.proxy.proxy import Proxy

    gone: dict[str, Endpoint] = {}

    def remember(update: Method) -> Method:
        def changed(table: Any, infos: Any) -> None:
            before = {endpoint.info.name: endpoint for endpoint in table.all()}
            update(table, infos)
            gone.update({name: endpoint for name, endpoint in before.items() if table.get(name) is None})

        return changed

    def prefer_the_gone(rotation: Method) -> Method:
        def changed(table: Any, model: Any, excluded: Any = ()) -> Any:
            return list(gone.values()) or rotation(table, model, excluded)

        return changed

    def never_again(create: Method) -> Method:
        def changed(proxy: Any, routing: Any) -> None:
            create(proxy, routing)
            proxy._config = proxy._config.model_copy(update={"attempts": 1})

        return changed

    _replace(EndpointTable, "update", remember)
    _replace(EndpointTable, "rotation", prefer_the_gone)
    _replace(Proxy, "__init__", never_again)


BUGS: dict[str, Bug] = {
    "forgets-short-events": Bug("I1", "events-duplicated", "only in the engine", _forget_short_events),
    "keeps-lost-blocks": Bug("I2", "events-restarted-at-zero", "only in the index", _keep_lost_blocks),
    "skips-the-gap-check": Bug("I3", "events-dropped", "only in the engine", _skip_the_gap_check),
    "shares-one-map": Bug("I4", "events-duplicated", "changed by events of others", _share_one_map),
    "applies-duplicates": Bug("I5", "events-reordered", "applied after batch", _apply_duplicates),
    "keeps-a-dead-epoch": Bug("I6", "container-kill", "blocks of a dead process", _keep_a_dead_epoch),
    "ignores-clears": Bug("I7", "cache-reset", "blocks that a clear took", _ignore_clears),
    "matches-one-block-more": Bug("I8", "events-duplicated", "matched", _match_one_block_more),
    "trusts-the-silent": Bug("I9", "hang", "last heard", _trust_the_silent),
    "keeps-a-deleted-engine": Bug("I10", "pod-kill", "is listed by the index", _keep_a_deleted_engine),
    "leaks-descriptors": Bug("I11", "events-duplicated", "over the limit", _leak_descriptors),
    "waits-for-one-publisher": Bug("I12", "events-dropped", "99th percentile of lag", _wait_for_one_publisher),
    "clings-to-a-deleted-engine": Bug("I13", "pod-kill", "ended with status", _cling_to_a_deleted_engine),
}
