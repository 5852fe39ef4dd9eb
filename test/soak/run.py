"""Runs mock engines, an index and a router under load and faults for a long time, for `make soak`.

    run.py --minutes 20 --seed 0 [--engines 3] [--quiet-every 120] [--out out/soak] [--only FAULT]...

Requests flow through the router all the time. Faults come one at a time, by seed. At each quiet point the requests
rest, the faults are healed, and the tables of the index must equal those of the engines. At the end the growth of
memory, descriptors and threads is judged. The exit status is 0 if everything passed, 1 if not, 2 for bad arguments, and
130 after Ctrl-C (143 after SIGTERM), which also writes a report.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import click
from soak_faults import ACTIONS, Chooser, inject
from soak_load import Load, rejected
from soak_processes import Plant, running
from soak_quiet import compare_everything
from soak_report import Record, write_report
from soak_sampling import Sampler

from kvsync_testkit.waiting import DeadlineError

OUT = Path(__file__).resolve().parents[2] / "out/soak"


class Interruption:
    """Remembers the first signal that asks the run to end, and wakes whatever waits."""

    def __init__(self) -> None:
        self.code = 0
        self._event = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.code = self.code or 128 + number
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait, and return whether the run is to end."""
        return self._event.wait(max(0.0, seconds))

    @property
    def wanted(self) -> bool:
        return self._event.is_set()


def run_round(plant: Plant, chooser: Chooser, record: Record, until_s: float, interruption: Interruption) -> None:
    """Inject one fault after another until `until_s` on the monotonic clock."""
    while time.monotonic() < until_s and not interruption.wanted:
        choice = chooser.choose()
        lasts_s, pause_s = chooser.seconds()
        done = inject(plant, choice, lasts_s, interruption.wait)
        record.faults.append(done)
        say(f"fault {done.name} on {done.target}, {done.count} effects")
        interruption.wait(pause_s)


def soak(
    plant: Plant, record: Record, chooser: Chooser, quiet_every_s: float, interruption: Interruption, sampler: Sampler
) -> None:
    """Alternate rounds of faults with quiet points until the time is over."""
    began = time.monotonic()
    ends = began + record.minutes * 60
    with sampler, Load(plant.router.port, record.seed) as load:
        while time.monotonic() < ends and not interruption.wanted:
            run_round(plant, chooser, record, min(ends, time.monotonic() + quiet_every_s), interruption)
            if interruption.wanted:
                break
            load.pause()
            point = compare_everything(plant, began)
            record.quiet.append(point)
            said = "; ".join(point.problems) or "no difference"
            say(f"quiet point {len(record.quiet)}: {point.blocks} blocks, {point.recovered_s:.1f} s to recover, {said}")
            load.resume()
    record.outcomes = load.outcomes
    record.duration_s = time.monotonic() - began
    record.slopes = sampler.slopes()


def attempt(work: Callable[[], None], record: Record) -> None:
    """Run, and turn a process that died or did not answer into a problem of the record."""
    try:
        work()
    except (AssertionError, DeadlineError, OSError) as error:
        record.problems.append(f"{type(error).__name__}: {error}")


def say(text: str) -> None:
    click.echo(f"soak: {text}")


@click.command(help="Run engines, index and router under load and faults.")
@click.option("--minutes", default=20.0, show_default=True, type=click.FloatRange(min=0.1))
@click.option("--seed", default=0, show_default=True, help="Chooses requests and faults.")
@click.option("--engines", default=3, show_default=True, type=click.IntRange(2, 64))
@click.option("--quiet-every", default=120.0, show_default=True, type=click.FloatRange(min=1), help="Seconds.")
@click.option("--only", multiple=True, type=click.Choice(sorted(ACTIONS)), help="Inject only these faults.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(path_type=Path))
def main(minutes: float, seed: int, engines: int, quiet_every: float, only: tuple[str, ...], out: Path) -> None:
    """Run, write the report, and exit with the verdict."""
    interruption = Interruption()
    out.mkdir(parents=True, exist_ok=True)
    record = Record(seed, minutes)
    plant = Plant(engines, out.resolve())
    sampler = Sampler(plant.servers)

    def work() -> None:
        with running(plant):
            say(f"{engines} engines, an index and a router; seed {seed}, {minutes:g} minutes")
            soak(plant, record, Chooser(seed, plant.engines, only), quiet_every, interruption, sampler)

    attempt(work, record)
    record.interrupted = interruption.wanted
    record.problems += rejected(record.outcomes)
    document = write_report(record, sampler, out)
    say(f"{document['verdict']}: {document['counts']}")
    for reason in document["reasons"]:
        say(f"  {reason}")
    say(f"report: {out / 'report.html'}")
    sys.exit(interruption.code or (1 if document["verdict"] == "failed" else 0))


if __name__ == "__main__":
    main()
