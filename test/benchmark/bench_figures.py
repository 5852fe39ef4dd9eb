"""Figures: what the head does here and now, beside what is wanted, a reference of the same run, and others' figures.

A figure judges nothing about a change (that is the gate's work); it says how fast the product is on this machine. Each
group is a script that can be run alone; here it runs as a process of its own with a time limit and its JSON is read.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Figure:
    """One measured number."""

    name: str
    value: float
    unit: str
    clock: str
    """Measured in: `cpu` (CPU time), `wall`, `memory` or `count`. Wall time holds on a quiet machine only."""
    wanted: float | None = None
    more_is_better: bool = False
    reference: float | None = None
    """The same quantity of the bare thing in the same run, in the same unit."""
    reference_name: str = ""
    series: str = ""
    """Figures of one series are drawn as one line ..."""
    at: float | None = None
    """... over this."""

    @property
    def met(self) -> bool | None:
        """Whether it is what is wanted; None where nothing is."""
        if self.wanted is None:
            return None
        return self.value >= self.wanted if self.more_is_better else self.value <= self.wanted

    @property
    def share(self) -> float | None:
        """How it stands to its reference: value / reference."""
        return None if not self.reference else self.value / self.reference


@dataclass(frozen=True)
class Group:
    """A script and what is read from its JSON."""

    name: str
    title: str
    script: str
    read: Callable[[dict[str, Any], str], list[Figure]]
    """(the script's JSON, the core) -> figures"""
    arguments: Callable[[str, bool], Sequence[str]]
    """(core, quick) -> its command line"""
    limit_s: float = 600.0


@dataclass(frozen=True)
class Measured:
    """What a group gave."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    problem: str = ""
    """Why it failed: a defect or something lost. Figures may be there all the same."""
    left_out: str = ""
    """Why it was not run, which is no failure."""
    load: float = 0.0
    """Runnable processes a processor when it began."""


def run_whole(command: Sequence[str], limit_s: float) -> "subprocess.CompletedProcess[str] | None":
    """Run a script with all the servers it starts; None when it is not done in time, and then none of them is left."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            out, err = process.communicate(timeout=limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_group(group: Group, core: str, *, quick: bool, load: float = 0.0, python: str = sys.executable) -> Measured:
    """Run a group's script; whatever goes wrong is in the answer, not an exception."""
    command = [python, str(HERE / group.script), *group.arguments(core, quick)]
    done = run_whole(command, group.limit_s)
    if done is None:
        return Measured(group.name, group.title, problem=f"not done after {group.limit_s:.0f} s", load=load)
    problem = ""
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        problem = f"exit status {done.returncode}: {last}"
    try:
        document = json.loads(done.stdout[done.stdout.index("{") :])
        if reason := document.get("left_out"):
            return Measured(group.name, group.title, left_out=str(reason), load=load)
        figures = group.read(document, core)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return Measured(
            group.name, group.title, problem=problem or f"its output: {type(error).__name__}: {error}", load=load
        )
    return Measured(group.name, group.title, figures, problem, load=load)
