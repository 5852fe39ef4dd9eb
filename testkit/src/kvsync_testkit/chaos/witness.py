"""Probes of the event stream: what an independent subscriber received, against replay and the engine's log."""

import itertools
from collections.abc import Callable
from typing import TypeAlias

from kvsync_events import BlockStored, digest_key
from kvsync_testkit.chaos.scene import Scene
from kvsync_testkit.chaos.tap import Arrival, Tap, decoded, stored_keys
from kvsync_testkit.chaos.verdicts import Observation
from kvsync_testkit.waiting import pause

Sign: TypeAlias = Callable[[Scene, str, list[Arrival]], bool | None]
"""Whether an engine's stream shows the fault, by the frames that arrived since the injection."""


def _gap(_scene: Scene, _name: str, frames: list[Arrival]) -> bool | None:
    seqs = sorted({frame.seq for frame in frames})
    return bool(seqs) and len(seqs) < seqs[-1] - seqs[0] + 1


def _again(_scene: Scene, _name: str, frames: list[Arrival]) -> bool | None:
    return len({(frame.seq, frame.payload) for frame in frames}) < len(frames)


def _out_of_order(_scene: Scene, _name: str, frames: list[Arrival]) -> bool | None:
    return any(later.seq < earlier.seq for earlier, later in itertools.pairwise(frames))


def _from_zero(scene: Scene, name: str, frames: list[Arrival]) -> bool | None:
    before = scene.taps[name].arrivals[: scene.seen_from.get(name, 0)]
    return bool(before) and any(frame.seq < before[-1].seq for frame in frames)


def _late(scene: Scene, _name: str, frames: list[Arrival]) -> bool | None:
    rule = scene.fault.settings["rules"][0]
    batches = ((frame.at_s, decoded(frame.payload)) for frame in frames)
    return any(batch and at - batch.ts > 0.8 * rule["ms"] / 1000.0 for at, batch in batches)


def _changed(scene: Scene, name: str, frames: list[Arrival]) -> bool | None:
    """Whether a live payload differs from the original that replay gives."""
    if not frames:
        return False
    original = scene.taps[name].replay(min(frame.seq for frame in frames)).items
    return any(frame.seq in original and original[frame.seq] != frame.payload for frame in frames)


def _large(scene: Scene, _name: str, frames: list[Arrival]) -> bool | None:
    size = int(scene.fault.settings["rules"][0]["size"])
    return any(len(frame.payload) >= size for frame in frames)


def _orphaned(scene: Scene, name: str, frames: list[Arrival]) -> bool | None:
    known = {digest_key(_number(entry["hash"])) for entry in scene.log(name) if entry.get("hash") is not None}
    for frame in frames:
        batch = decoded(frame.payload)
        for event in batch.events if batch else []:
            parent = event.parent_block_hash if isinstance(event, BlockStored) else None
            if parent is not None and digest_key(parent) not in known:
                return True
    return False


def _number(value: int | str) -> int | bytes:
    return bytes.fromhex(value) if isinstance(value, str) else value


def _unannounced(scene: Scene, name: str, frames: list[Arrival]) -> bool | None:
    """Whether the engine's log has stored blocks since the injection that no frame announced."""
    entries = scene.log(name)[scene.tapped_from.get(name, 0) :]
    stored = {digest_key(_number(entry["hash"])) for entry in entries if entry["kind"] == "stored"}
    pause(0.5)  # what the log has now must have arrived by then
    arrived = scene.taps[name].arrivals[max(0, scene.seen_from.get(name, 0) - 1) :]
    return bool(stored - stored_keys(arrived or frames))


def _mute(scene: Scene, name: str, _frames: list[Arrival]) -> bool | None:
    return not scene.taps[name].replay(0, timeout_s=2.0).items


def _trickling(scene: Scene, name: str, _frames: list[Arrival]) -> bool | None:
    last = scene.taps[name].arrivals[-1].seq if scene.taps[name].arrivals else 0
    answer = scene.taps[name].replay(max(0, last - 3), timeout_s=4.0)
    pause_s = float(scene.fault.settings["rules"][0]["ms"]) / 1000.0
    return answer.span_s > 0.8 * pause_s * max(1, len(answer.items))


def _cut_short(scene: Scene, name: str, _frames: list[Arrival]) -> bool | None:
    frames = scene.taps[name].arrivals
    if len(frames) < 4:
        return False
    newest = frames[-3].seq
    return newest not in scene.taps[name].replay(max(0, newest - 5), timeout_s=2.0).items


def _false(scene: Scene, name: str, _frames: list[Arrival]) -> bool | None:
    """Whether replay denies what the live stream of the same process brought, or gives it in another order."""
    live = {frame.seq: frame.payload for frame in scene.taps[name].arrivals[-20:]}
    if len(live) < 2:
        return False
    replayed = scene.taps[name].replay(min(live)).items
    changed = any(replayed.get(seq) != payload for seq, payload in live.items())
    return changed or list(replayed) != sorted(replayed)


def _overtaken(scene: Scene, name: str, frames: list[Arrival]) -> bool | None:
    """Whether numbers go on rising although replay has other bytes for those that arrived before the injection."""
    before = scene.taps[name].arrivals[: scene.seen_from.get(name, 0)]
    if not before or not frames:
        return False
    if any(frame.seq <= before[-1].seq for frame in frames):
        return False  # the numbers went back, which anyone would notice
    replayed = scene.taps[name].replay(before[-1].seq).items
    return replayed.get(before[-1].seq, before[-1].payload) != before[-1].payload


def _emptied(scene: Scene, name: str, _frames: list[Arrival]) -> bool | None:
    """Whether the engine's log shows since the injection that its cache was cleared."""
    return any(entry["kind"] == "cleared" for entry in scene.log(name)[scene.tapped_from.get(name, 0) :])


SIGNS: dict[str, Sign] = {
    "drop": _gap,
    "drop_unnumbered": _unannounced,
    "duplicate": _again,
    "reorder": _out_of_order,
    "delay": _late,
    "corrupt": _changed,
    "truncate": _changed,
    "wrong_parent": _orphaned,
    "oversize": _large,
    "restart": _from_zero,
    "replay_silent": _mute,
    "replay_slow": _trickling,
    "replay_truncate": _cut_short,
    "replay_lie": _false,
    "overtaken": _overtaken,
    "emptied": _emptied,
}


def witness(scene: Scene) -> Observation:
    """Look for the sign of the fault in both streams."""
    sign = SIGNS[scene.fault.probe]
    seen, detail = {}, {}
    for name in (scene.pair.affected, scene.pair.control):
        tap: Tap = scene.taps[name]
        frames = tap.arrivals[scene.seen_from.get(name, 0) :]
        seen[name] = sign(scene, name, frames)
        detail[name] = {"frames": len(frames), "fault seen": seen[name]}
    return Observation(seen[scene.pair.affected], seen[scene.pair.control], detail)
