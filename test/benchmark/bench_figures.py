"""Figures that say how fast the product is on this machine, and the scripts that measure them.

A figure has a target, a reference of the same run, or both. It does not judge a change, which is the purpose of the
gate. Each group of figures is a script that can be run alone. Here it runs as a process with a time limit, and its JSON
output is read.
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
    """A measured number."""

    name: str
    value: float
    unit: str
    clock: str
    """`cpu` (CPU time), `wall`, `memory` or `count`. Wall time is meaningful on a quiet machine only."""
    target: float | None = None
    more_is_better: bool = False
    reference: float | None = None
    """The value of a bare implementation in the same run, in the same unit."""
    reference_name: str = ""
    series: str = ""
    """The figures of a series are drawn as one line."""
    at: float | None = None
    """The position of the figure on the axis of its series."""

    @property
    def met(self) -> bool | None:
        """Whether the value meets the target, or None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target

    @property
    def share(self) -> float | None:
        """The ratio value / reference, or None without a reference."""
        return None if not self.reference else self.value / self.reference


@dataclass(frozen=True)
class Group:
    """A script, its arguments, and the function that reads its JSON."""

    name: str
    title: str
    script: str
    read: Callable[[dict[str, Any], str], list[Figure]]
    """Maps (the JSON of the script, the kind of core) to figures."""
    arguments: Callable[[str, bool], Sequence[str]]
    """Maps (the kind of core, quick) to the arguments of the script."""
    limit_s: float = 600.0


@dataclass(frozen=True)
class Measured:
    """The result of a group."""

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    problem: str = ""
    """Why the group failed, for example because batches were lost. It may have figures nevertheless."""
    left_out: str = ""
    """Why the group was not run, which is not a failure."""
    load: float = 0.0
    """Runnable processes per processor when the group began."""


def run_whole(command: Sequence[str], limit_s: float) -> "subprocess.CompletedProcess[str] | None":
    """Run a script, and return None if it exceeds the limit.

    The script and the servers that it started form a process group, which is killed after the limit.
    """
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
    """Run the script of a group. A failure is part of the result, not an exception."""
    command = [python, str(HERE / group.script), *group.arguments(core, quick)]
    done = run_whole(command, group.limit_s)
    if done is None:
        return Measured(group.name, group.title, problem=f"not finished after {group.limit_s:.0f} s", load=load)
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
            group.name, group.title, problem=problem or f"unreadable output: {type(error).__name__}: {error}", load=load
        )
    return Measured(group.name, group.title, figures, problem, load=load)
