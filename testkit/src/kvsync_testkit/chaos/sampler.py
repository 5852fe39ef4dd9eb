"""Samples of what the index says and of what the engines hold, taken all through a run."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.history import History
from kvsync_testkit.checks import AppliedBatch, Forgotten, Sample

REBUILDS = ("resyncs", "restarts", "epochs", "truncations")
NOTICES = (
    *REBUILDS, "gaps", "decode_errors", "quarantines", "stales", "disconnects", "duplicates", "replays",
    "replay_failures",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """One sample: the rows of the index by pod, None if it did not answer, and the tables' sizes of the engines."""

    at_s: float
    rows: dict[str, dict[str, Any]] | None
    engines: dict[str, tuple[int, int | None]]
    """By engine that answered: blocks held, last sequence number published."""


class Sampler:
    """A thread that looks every `every_s` seconds."""

    def __init__(self, backend: Backend, history: History, every_s: float = 0.3) -> None:
        self.looks: list[Look] = []
        self.sizes: list[Sample] = []
        self._backend, self._history, self._every_s = backend, history, every_s
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ending.set()
        if self._thread.ident is not None:
            self._thread.join(30.0)

    def _run(self) -> None:
        while not self._ending.wait(self._every_s):
            look = look_once(self._backend, self._history)
            self.looks.append(look)
            if len(self.looks) % 4 == 0:
                self.sizes += _sizes(self._backend, look.at_s)


def look_once(backend: Backend, history: History) -> Look:
    """Ask the index and the engines once, and write what they say to the history."""
    engines: dict[str, tuple[int, int | None]] = {}
    for name in backend.engines():
        try:
            digest = backend.call(name, "GET", "/debug/kv/digest", timeout_s=1.0).json()
            count = sum(entry["count"] for entry in digest["digests"])
            engines[name] = (count, next(iter(digest["seq"].values()), None))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    try:
        listed = backend.call("index", "GET", "/v1/publishers", timeout_s=2.0).json()["publishers"]
        rows: dict[str, dict[str, Any]] | None = {row["pod"].rsplit("/", 1)[-1]: row for row in listed}
    except (OSError, ValueError, KeyError, TypeError):
        rows = None
    brief = {name: (row["state"], row["last_seq"], row["blocks"], row["age_s"]) for name, row in (rows or {}).items()}
    return Look(history.add("look", index=brief if rows is not None else None, engines=engines), rows, engines)


def _sizes(backend: Backend, at_s: float) -> list[Sample]:
    wanted = {"process_resident_memory_bytes": "memory of the index", "process_open_fds": "descriptors of the index"}
    try:
        text = backend.call("index", "GET", "/metrics", timeout_s=2.0).data.decode()
    except OSError:
        return []
    pairs = (line.split(" ", 1) for line in text.splitlines() if line.split(" ", 1)[0] in wanted)
    return [Sample(at_s, wanted[name], float(value)) for name, value in pairs]


def applied(looks: Sequence[Look]) -> list[AppliedBatch | Forgotten]:
    """Return what the samples show of the order in which batches were applied, for `check_sequence`."""
    found: list[AppliedBatch | Forgotten] = []
    last: dict[str, tuple[str, int, int]] = {}
    for look in looks:
        for name, row in (look.rows or {}).items():
            rebuilds = sum(int(row[key]) for key in REBUILDS)
            before = last.get(name)
            if before and before[2] != rebuilds:
                found.append(Forgotten(look.at_s, name))
            if row["last_seq"] is None:
                continue
            now = (str(row["epoch"]), int(row["last_seq"]), rebuilds)
            if before != now and (before is None or before[:2] != now[:2] or before[2] != rebuilds):
                found.append(AppliedBatch(look.at_s, name, now[0], now[1]))
            last[name] = now
    return found


def noticed(looks: Sequence[Look], engine: str, since_s: float) -> float | None:
    """Return when, after `since_s`, the index first showed that something had happened to the engine."""
    before = [look.rows[engine] for look in looks if look.at_s <= since_s and look.rows and engine in look.rows]
    counts = {key: before[-1][key] for key in NOTICES} if before else {}
    for look in looks:
        if look.at_s <= since_s:
            continue
        row = (look.rows or {}).get(engine)
        if row is None or row["state"] != "live" or any(row[key] > count for key, count in counts.items()):
            return look.at_s
    return None


def observed_lags(looks: Sequence[Look]) -> list[tuple[float, str, float]]:
    """Return (time, engine, lag in seconds): for how long the index has lacked a batch that the engine had published.

    It is 0 where the index had everything that was seen of the engine, and owes nothing to what the index says of its
    own lag. It is at most too small by the time between two samples.
    """
    found: list[tuple[float, str, float]] = []
    marks: dict[str, list[tuple[float, int]]] = {}
    for look in looks:
        for name, (_, seq) in look.engines.items():
            row = (look.rows or {}).get(name)
            if seq is None:
                continue
            seen = marks.setdefault(name, [])
            if seen and seq < seen[-1][1]:
                seen.clear()  # another process
            seen.append((look.at_s, seq))
            if row is None or row["last_seq"] is None:
                continue
            seen[:] = [mark for mark in seen if mark[1] > row["last_seq"]]
            found.append((look.at_s, name, look.at_s - seen[0][0] if seen else 0.0))
    return found
