"""From the state of a publisher to its row in `/v1/publishers`."""

from kvsync_indexer.api import PublisherRow
from kvsync_indexer.core import IndexCore, UnknownPublisherError
from kvsync_indexer.ingest import PublisherLink
from kvsync_indexer.sync import State


def _reason(link: PublisherLink, reason: str) -> str:
    """Why the publisher is in its state, with what the sockets and the follower know beyond the machine."""
    if link.follower.removals.note and link.follower.removals.note not in reason:
        reason = f"{reason}; {link.follower.removals.note}"
    if link.problem is not None:
        return link.problem
    if link.connected or link.machine.state not in (State.CONNECTING, State.STALE):
        return reason
    waiting = "no engine has connected to" if link.spec.bind else "no connection to"
    return f"{reason}; {waiting} {link.spec.endpoint}"


def publisher_row(link: PublisherLink, core: IndexCore, now: float) -> PublisherRow:
    """The row of one publisher; `now` is monotonic time in seconds."""
    spec, status, totals = link.spec, link.machine.status(now), link.totals
    counters = status.counters
    try:
        blocks, orphans = core.sizes(spec.name)
    except UnknownPublisherError:  # removed a moment ago
        blocks = orphans = 0
    return PublisherRow(
        name=spec.name,
        pod=spec.pod,
        model=spec.model,
        rank=spec.rank,
        http_rank=spec.http_rank,
        state=str(status.state),
        reason=_reason(link, status.reason),
        epoch=link.epoch,
        last_seq=status.last_seq,
        lag=status.lag,
        age_s=None if status.age_s is None else round(status.age_s, 6),
        gaps=counters.gaps,
        resyncs=counters.resyncs,
        decode_errors=counters.decode_errors,
        blocks=blocks,
        incomplete=status.incomplete,
        ready=spec.ready,
        incarnation=status.incarnation,
        lag_s=None if totals.lag_s is None else round(totals.lag_s, 6),
        block_size=totals.block_size,
        orphans=orphans,
        missed=counters.missed,
        restarts=counters.restarts,
        epochs=counters.epochs,
        truncations=counters.truncations,
        quarantines=counters.quarantines,
        stales=counters.stales,
        disconnects=counters.disconnects,
        duplicates=counters.duplicates,
        replays=counters.replays,
        replay_failures=counters.replay_failures,
        replay_lies=counters.replay_lies,
        buffered=status.buffered,
        buffer_dropped=counters.buffer_dropped,
        transitions=counters.transitions,
        batches=totals.batches,
        events=totals.events,
        unknown_events=totals.unknown_events,
        unknown_removed=totals.unknown_removed,
        set_aside=totals.set_aside,
        refused=totals.refused,
        engine_version=link.engine_version,
        removals=link.follower.removals.removals,
        endpoint=spec.endpoint,
        replay_endpoint=spec.replay_endpoint,
        http_url=spec.http_url,
        debug_url=spec.debug_url,
        source=spec.source,
    )
