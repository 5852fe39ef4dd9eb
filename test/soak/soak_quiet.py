"""The quiet point: traffic rests, every fault is healed, and the index must equal every engine.

Two comparisons decide. The first is the audit that the index itself offers. The second does not use the audit: it
reads both tables over HTTP and compares them with the checkers of `kvsync_testkit`.
"""

import time
from dataclasses import dataclass

from soak_processes import Engine, Plant

from kvsync_testkit.checks import Rows, Violation, check_agreement, check_no_false_positive, parse_rows
from kvsync_testkit.waiting import DeadlineError, wait_until

DEADLINE_S = 90.0
"""Longest time for everything to recover. A quarantined publisher is tried again after up to a minute."""


@dataclass(frozen=True)
class QuietPoint:
    """The result of one comparison of all engines."""

    at_s: float
    recovered_s: float
    """Time from the heal until the audit found all tables equal."""
    blocks: int
    incomplete: int
    """Publishers of which the index says that it may not know every block."""
    problems: tuple[str, ...]


def compare_everything(plant: Plant, began: float, deadline_s: float = DEADLINE_S) -> QuietPoint:
    """Heal, wait for the recovery, and compare every engine; the load must rest."""
    healed = time.monotonic()
    problems: list[str] = []
    plant.heal()
    try:
        plant.wait_live(deadline_s)
        wait_until("the audit is certain", lambda: audit(plant, problems), deadline_s=deadline_s, every_s=0.2)
    except DeadlineError as error:
        problems.append(str(error))
    recovered = time.monotonic() - healed
    rows = {row["name"]: row for row in plant.index.ok("GET", "/v1/publishers")["publishers"]}
    blocks = 0
    for engine in plant.engines:
        truth = read_rows(plant, engine)
        blocks += sum(truth[0].values())
        incomplete = rows.get(engine.name, {}).get("incomplete", False)
        problems += map(str, compare(engine.name, *truth, incomplete=incomplete))
    incomplete_count = sum(row["incomplete"] for row in rows.values())
    return QuietPoint(healed - began, recovered, blocks, incomplete_count, tuple(problems))


def audit(plant: Plant, problems: list[str]) -> bool:
    """Whether the audit is certain about every engine; a certain difference is added to `problems`.

    What the index lacks of an incomplete publisher is no difference, because the index says that it may lack blocks.
    """
    audits = plant.index.ok("POST", "/v1/audit", {"wait_quiet_s": 5.0})["publishers"]
    wrong = [each for each in audits if each["verdict"] == "different" and (each["extra"] or not each["incomplete"])]
    problems += [
        f"audit of {each['publisher']}: missing {each['missing']}, extra {each['extra']} blocks" for each in wrong
    ]
    certain = all(each["verdict"] in ("equal", "different") for each in audits)
    return bool(wrong) or (certain and len(audits) == len(plant.engines))


def read_rows(plant: Plant, engine: Engine) -> tuple[Rows, Rows]:
    """(table of the engine, table of the index)."""
    _, _, truth = engine.ask("GET", "/debug/kv/blocks")
    _, _, known = plant.index.ask("GET", f"/v1/publishers/{engine.name}/blocks")
    return parse_rows(truth.splitlines()), parse_rows(known.splitlines())


def compare(name: str, truth: Rows, known: Rows, *, incomplete: bool) -> list[Violation]:
    """I1, or only I2 for a publisher that the index calls incomplete."""
    return check_no_false_positive(name, truth, known) if incomplete else check_agreement(name, truth, known)
