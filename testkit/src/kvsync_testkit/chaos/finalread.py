"""What is read when the load has ended: block tables of engines and index, transition logs, and answers to matches."""

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

from kvsync_events import digest_key
from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.history import History
from kvsync_testkit.chaos.load import BLOCK, MODEL
from kvsync_testkit.checks import Answer, Row, Transition, check_agreement, parse_rows
from kvsync_testkit.waiting import pause, wait_until

NOT_YET = (OSError, KeyError, ValueError, AssertionError)


@dataclass
class FinalRead:
    """The facts at rest."""

    truth: dict[str, dict[Row, int]] = field(default_factory=dict)
    index: dict[str, dict[Row, int]] = field(default_factory=dict)
    logs: dict[str, list[Transition]] = field(default_factory=dict)
    """By engine, the transitions of its present epoch."""
    answers: list[Answer] = field(default_factory=list)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    poked: str = ""
    """The engine that announced something between the next two tables."""
    before_poke: dict[str, dict[Row, int]] = field(default_factory=dict)
    after_poke: dict[str, dict[Row, int]] = field(default_factory=dict)


def engine_table(backend: Backend, name: str) -> dict[Row, int]:
    """Return the block table of an engine."""
    return parse_rows(backend.call(name, "GET", "/debug/kv/blocks").data.splitlines())


def index_rows(backend: Backend) -> dict[str, dict[str, Any]]:
    """Return the index's rows of publishers by the name of their pod."""
    listed = backend.call("index", "GET", "/v1/publishers").json()["publishers"]
    return {row["pod"].rsplit("/", 1)[-1]: row for row in listed}


def index_table(backend: Backend, publisher: str) -> dict[Row, int]:
    """Return what the index holds for a publisher."""
    path = f"/v1/publishers/{quote(publisher, safe='')}/blocks"
    answer = backend.call("index", "GET", path)
    if answer.status != 200:
        raise ConnectionError(f"{path}: {answer.status}")
    return parse_rows(answer.data.splitlines())


def wait_caught_up(backend: Backend, names: Sequence[str], deadline_s: float, *, complete: bool = False) -> None:
    """Wait until the index is live at the last batch that each engine had published when this was called.

    With `complete` the index must also say that it knows of every block.

    Raises:
        DeadlineError: it did not get there in time.
    """
    began = time.monotonic()
    marks: dict[str, int | None] = {}

    def marked() -> bool:
        for name in names:
            if name not in marks:
                digest = backend.call(name, "GET", "/debug/kv/digest", timeout_s=2.0).json()
                marks[name] = next(iter(digest["seq"].values()), None)
        return True

    def reached() -> bool:
        marked()
        rows = index_rows(backend)
        for name, mark in marks.items():
            row = rows[name]
            assert row["state"] == "live", f"{name} is {row['state']} ({row['reason']})"
            assert not (complete and row["incomplete"]), f"{name} is incomplete"
            assert mark is None or (row["last_seq"] or -1) >= mark, f"{name} is at {row['last_seq']}, not at {mark}"
        assert set(rows) >= set(names)
        return True

    left = max(0.5, deadline_s - (time.monotonic() - began))
    wait_until("the index is at the last batches", reached, deadline_s=left, every_s=0.1, retry_on=NOT_YET)


def wait_quiet(backend: Backend, names: Sequence[str], deadline_s: float = 30.0) -> None:
    """Wait until the engines do nothing and have announced everything."""

    def quiet() -> bool:
        return all(backend.call(name, "GET", "/debug/kv/digest").json()["quiet"] for name in names)

    wait_until("the engines are quiet", quiet, deadline_s=deadline_s, every_s=0.1, retry_on=NOT_YET)


def read_all(backend: Backend, affected: str, history: History, *, agree_s: float = 5.0) -> FinalRead:
    """Read everything. The tables are read again for up to `agree_s` seconds while they differ."""
    names = list(backend.engines())
    wait_quiet(backend, names)
    read = FinalRead()
    end = time.monotonic() + agree_s
    while True:
        read.rows = index_rows(backend)
        read.truth = {name: engine_table(backend, name) for name in names}
        read.index = {name: index_table(backend, str(row["name"])) for name, row in read.rows.items()}
        if all(not check_agreement(name, read.truth[name], read.index.get(name, {})) for name in names):
            break
        if time.monotonic() >= end:
            break
        pause(0.2)
    read.logs = {name: _log_of_epoch(backend, name) for name in names}
    for name in names:
        read.answers += _matches(backend, name, read)
    _poke(backend, affected, read)
    history.add(
        "final",
        engines={name: len(table) for name, table in read.truth.items()},
        index={name: len(table) for name, table in read.index.items()},
    )
    return read


def _log_of_epoch(backend: Backend, name: str) -> list[Transition]:
    entries = backend.call(name, "GET", "/debug/kv/log?since=0").data.splitlines()
    found: list[Transition] = []
    for entry in map(json.loads, entries):
        if entry["kind"] == "fault":
            found = [] if entry.get("fault") == "restart" else found
            continue
        row = None
        if entry.get("hash") is not None:
            value = bytes.fromhex(entry["hash"]) if isinstance(entry["hash"], str) else int(entry["hash"])
            row = Row(digest_key(value), str(entry["medium"]).upper(), entry.get("group_idx"))
        found.append(Transition(entry["kind"], row, entry.get("medium") if row is None else None))
    return found


def _matches(backend: Backend, name: str, read: FinalRead, count: int = 4) -> list[Answer]:
    """Ask for the longest chains of an engine and for their beginnings."""
    entries = [json.loads(line) for line in backend.call(name, "GET", "/debug/kv/blocks").data.splitlines()]
    resident = {entry["hash"]: entry for entry in entries if entry["token_ids"]}
    chains = sorted((_chain(resident, key) for key in resident), key=len, reverse=True)[:count]
    found = []
    for chain in chains:
        for length in sorted({len(chain), max(1, len(chain) // 2)}):
            part = chain[:length]
            tokens = [token for entry in part for token in entry["token_ids"]]
            body = {"model": MODEL, "token_ids": tokens}
            listed = backend.call("index", "POST", "/v1/match", body).json()["matches"]
            matched = {row["pod"].rsplit("/", 1)[-1]: int(row["matched_blocks"]) for row in listed}
            keys = tuple(_key(entry["hash"]) for entry in part)
            found += [Answer(pod, keys, blocks) for pod, blocks in matched.items() if pod in read.index]
    return found


def _chain(resident: dict[Any, dict[str, Any]], key: object) -> list[dict[str, Any]]:
    chain: list[dict[str, Any]] = []
    while key is not None:
        entry = resident.get(key)
        if entry is None:
            return []  # its beginning has been evicted
        chain.append(entry)
        key = entry["parent"]
    return chain[::-1]


def _key(value: int | str) -> int:
    return digest_key(bytes.fromhex(value) if isinstance(value, str) else value)


def _poke(backend: Backend, affected: str, read: FinalRead) -> None:
    """Have one engine announce something, and read the tables of all publishers before and after."""
    engines = backend.engines()
    target = read.poked = affected if affected in engines else engines[0]
    names = {name: cast("str", row["name"]) for name, row in read.rows.items()}
    read.before_poke = {name: index_table(backend, publisher) for name, publisher in names.items()}
    unseen = random.Random(time.time_ns())  # a prompt that is cached would be announced by nothing
    prompt = [unseen.randrange(300, 100_000) for _ in range(2 * BLOCK)]
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 20, "ignore_eos": True}
    backend.call(target, "POST", "/v1/completions", body)
    wait_quiet(backend, [target])
    wait_caught_up(backend, [target], 10.0)
    read.after_poke = {name: index_table(backend, publisher) for name, publisher in names.items()}
