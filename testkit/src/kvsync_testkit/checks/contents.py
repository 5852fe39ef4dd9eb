"""Checkers that compare what an index holds with what an engine holds (I1-I4, I6, I7)."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from kvsync_testkit.checks.facts import Row, Rows, Transition, Violation

_SHOWN = 5


def check_agreement(publisher: str, truth: Rows, index: Rows, *, copies: bool = True) -> list[Violation]:
    """I1: quiet, healed and replayable, the index holds exactly what the engine holds.

    With `copies` the number of copies of each block must agree as well.
    """
    found = _differences("I1", publisher, truth, index) + _differences("I1", publisher, index, truth, swapped=True)
    if copies and not found:
        wrong = [row for row, count in truth.items() if index[row] != count]
        if wrong:
            first = wrong[0]
            found.append(
                Violation(
                    "I1",
                    publisher,
                    f"{len(wrong)} blocks with another number of copies, e.g. {_name(first)}: "
                    f"{truth[first]} in the engine, {index[first]} in the index",
                )
            )
    return found


def check_no_false_positive(publisher: str, truth: Rows, index: Rows) -> list[Violation]:
    """I2: at rest the index holds nothing that the engine does not."""
    return _differences("I2", publisher, index, truth, swapped=True)


def check_no_loss(publisher: str, truth: Rows, index: Rows) -> list[Violation]:
    """I3: a gap within the replay buffer's reach costs nothing: all the engine holds is in the index."""
    return _differences("I3", publisher, truth, index)


def check_isolation(before: Mapping[str, Rows], after: Mapping[str, Rows], touched: Collection[str]) -> list[Violation]:
    """I4: events of the `touched` publishers (or models, adapters, salts, groups, tiers) changed no other's table."""
    found = []
    for name in sorted((set(before) | set(after)) - set(touched)):
        old, new = before.get(name, {}), after.get(name, {})
        if old != new:
            changed = [row for row in {**old, **new} if old.get(row) != new.get(row)]
            found.append(Violation("I4", name, f"changed by events of others: {_list(changed)}"))
    return found


def check_epoch(publisher: str, index: Rows, stored_by_current: Collection[Row]) -> list[Violation]:
    """I6: every block in the index was announced by the process that lives now."""
    dead = [row for row in index if row not in stored_by_current]
    return [Violation("I6", publisher, f"blocks of a dead process: {_list(dead)}")] if dead else []


def check_cleared(publisher: str, index: Rows, log: Sequence[Transition]) -> list[Violation]:
    """I7: nothing in the index was stored only before the last clear that concerns it."""
    alive: set[Row] = set()
    for entry in log:
        if entry.kind == "stored" and entry.row is not None:
            alive.add(entry.row)
        elif entry.kind == "cleared":
            alive = {row for row in alive if entry.medium is not None and row.medium != entry.medium}
    survivors = [row for row in index if row not in alive]
    return [Violation("I7", publisher, f"blocks that a clear took: {_list(survivors)}")] if survivors else []


def _differences(invariant: str, publisher: str, left: Rows, right: Rows, *, swapped: bool = False) -> list[Violation]:
    missing = [row for row in left if row not in right]
    if not missing:
        return []
    what = "only in the index" if swapped else "only in the engine"
    return [Violation(invariant, publisher, f"{what}: {_list(missing)}")]


def _list(rows: Iterable[Row]) -> str:
    rows = sorted(rows, key=lambda row: (row.key, row.medium, row.group_idx or 0))
    shown = ", ".join(map(_name, rows[:_SHOWN]))
    return f"{len(rows)} ({shown}{', …' if len(rows) > _SHOWN else ''})"


def _name(row: Row) -> str:
    group = "" if row.group_idx is None else f"/{row.group_idx}"
    return f"{row.key:016x}@{row.medium}{group}"
