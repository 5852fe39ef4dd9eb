"""Checkers that compare what an index holds with what an engine holds (I1-I4, I6, I7)."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from kvsync_testkit.checks.facts import Holding, Row, Rows, Transition, Violation

_SHOWN = 5


def check_agreement(publisher: str, truth: Rows, index: Rows, *, copies: bool = True) -> list[Violation]:
    """I1: quiet, healed and replayable, the index holds exactly what the engine holds.

    With `copies` the number of copies of each block must agree as well.
    """
    found = _differences("I1", publisher, truth, index) + _differences("I1", publisher, index, truth, swapped=True)
    if copies and not found:
        wrong = [row for row, count in truth.items() if index[row] != count]
        if wrong:
            first = min(wrong, key=_order)
            found.append(
                Violation(
                    "I1",
                    publisher,
                    f"{len(wrong)} blocks with another number of copies, e.g. {first}: "
                    f"{truth[first]} in the engine, {index[first]} in the index",
                    (Holding(first, (truth[first], index[first])),),
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
            first = min(changed, key=_order)
            evidence = Holding(first, (old.get(first, 0), new.get(first, 0)), ("index before", "index after"))
            found.append(Violation("I4", name, f"changed by events of others: {_list(changed)}", (evidence,)))
    return found


def check_epoch(publisher: str, index: Rows, stored_by_current: Collection[Row]) -> list[Violation]:
    """I6: every block in the index was announced by the process that lives now."""
    dead = [row for row in index if row not in stored_by_current]
    if not dead:
        return []
    first = min(dead, key=_order)
    evidence = Holding(first, (0, index[first]), ("log of the living process", "index"))
    return [Violation("I6", publisher, f"blocks of a dead process: {_list(dead)}", (evidence,))]


def check_cleared(publisher: str, index: Rows, log: Sequence[Transition]) -> list[Violation]:
    """I7: nothing in the index was stored only before the last clear that concerns it."""
    alive: set[Row] = set()
    for entry in log:
        if entry.kind == "stored" and entry.row is not None:
            alive.add(entry.row)
        elif entry.kind == "cleared":
            alive = {row for row in alive if entry.medium is not None and row.medium != entry.medium}
    survivors = [row for row in index if row not in alive]
    if not survivors:
        return []
    first = min(survivors, key=_order)
    evidence = (*_last_story(first, log), Holding(first, (0, index[first])))
    return [Violation("I7", publisher, f"blocks that a clear took: {_list(survivors)}", evidence)]


def _last_story(row: Row, log: Sequence[Transition]) -> list[Transition]:
    """The last time that the engine stored this block, and the first clear after it."""
    stored = max((at for at, entry in enumerate(log) if entry.kind == "stored" and entry.row == row), default=None)
    if stored is None:
        return []
    clears = (entry for entry in log[stored:] if entry.kind == "cleared" and entry.medium in (None, row.medium))
    return [log[stored], *([clear] if (clear := next(clears, None)) else [])]


def _differences(invariant: str, publisher: str, left: Rows, right: Rows, *, swapped: bool = False) -> list[Violation]:
    missing = [row for row in left if row not in right]
    if not missing:
        return []
    what = "only in the index" if swapped else "only in the engine"
    first = min(missing, key=_order)
    evidence = Holding(first, (0, left[first]) if swapped else (left[first], 0))
    return [Violation(invariant, publisher, f"{what}: {_list(missing)}", (evidence,))]


def _list(rows: Iterable[Row]) -> str:
    rows = sorted(rows, key=_order)
    shown = ", ".join(map(str, rows[:_SHOWN]))
    return f"{len(rows)} ({shown}{', …' if len(rows) > _SHOWN else ''})"


def _order(row: Row) -> tuple[int, str, int]:
    return row.key, row.medium, row.group_idx or 0
