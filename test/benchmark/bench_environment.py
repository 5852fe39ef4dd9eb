"""Where a run takes place: the machine, the checkout, and a base revision with an environment of its own.

A base is unpacked from git's objects into `out/benchmark/base-<commit>` and set up there by its own `hack/setup.sh`.
That is no git worktree: nothing is registered in the repository, a dirty tree does not matter, and what an interrupted
run left behind is seen by the missing `.ready` and made again. Only the last base is kept.
"""

import fcntl
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent.parent
BUSY_LOAD = 0.5
"""Runnable processes a processor, above which wall-clock figures measure the neighbours."""


def git(*arguments: str, root: Path = ROOT) -> str:
    """The output of a git command. Raises click.ClickException with git's last line."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise click.ClickException("git is not installed") from None
    if done.returncode:
        raise click.ClickException(f"git {' '.join(arguments)}: {_last_line(done.stderr)}")
    return done.stdout.strip()


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["failed"])[-1]


@dataclass(frozen=True)
class Head:
    """What is measured: a commit and whether the tree differs from it. Empty outside a git checkout."""

    commit: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.commit[:12] or 'no commit'}{' and changes' if self.dirty else ''}"


def read_head(root: Path = ROOT) -> Head:
    """The checkout's state."""
    try:
        return Head(git("rev-parse", "HEAD", root=root), bool(git("status", "--porcelain", root=root)))
    except click.ClickException:
        return Head("", dirty=False)


def choose_base(asked: str | None, head: Head, root: Path = ROOT) -> tuple[str, str]:
    """`(commit, why)`; an empty commit means that there is nothing to compare with, and `why` says so.

    Unless asked for, the base is HEAD if the tree has changes, else where the branch left `origin/main`, else the
    commit before. Raises click.ClickException when a revision was asked for and is not there.
    """
    if asked:
        return git("rev-parse", "--verify", f"{asked}^{{commit}}", root=root), asked
    if not head.commit:
        return "", "this is no git checkout"
    if head.dirty:
        return head.commit, "HEAD, since the tree has changes"
    for arguments, why in (
        (("merge-base", "HEAD", "origin/main"), "where this branch left origin/main"),
        (("rev-parse", "--verify", "HEAD~1^{commit}"), "the commit before"),
    ):
        try:
            commit = git(*arguments, root=root)
        except click.ClickException:
            continue
        if commit != head.commit:
            return commit, why
    return "", "the checkout holds no earlier commit (a shallow clone?)"


def prepare_base(commit: str, out: Path, root: Path = ROOT) -> Path:
    """The interpreter of an environment made from `commit`. Raises click.ClickException when its set-up fails."""
    folder = out / f"base-{commit[:12]}"
    for other in out.glob("base-*"):
        if other != folder and other.is_dir():
            shutil.rmtree(other)
    ready = folder / ".ready"
    if not ready.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _unpack(commit, folder, root)
    log = out / "base-setup.log"
    tools = root / ".tools/bin"
    environment = os.environ | {
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', '')}",
        "CARGO_TARGET_DIR": str(out / "cargo-target"),
    }
    with log.open("w") as stream:
        done = subprocess.run([folder / "hack/setup.sh"], stdout=stream, stderr=stream, env=environment, check=False)
    if done.returncode:
        raise click.ClickException(f"set-up of the base failed: {_last_line(log.read_text())} (all of it: {log})")
    ready.touch()
    return folder / ".venv/bin/python"


def _unpack(commit: str, folder: Path, root: Path) -> None:
    archive = subprocess.run(["git", "archive", "--format=tar", commit], cwd=root, capture_output=True, check=False)
    if archive.returncode:
        raise click.ClickException(f"git archive {commit}: {_last_line(archive.stderr.decode())}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Nobody else measures into `out` meanwhile. Raises click.ClickException when somebody does."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"another benchmark run is writing to {out}") from None
        yield


def read_fingerprint(core: str) -> dict[str, object]:
    """What must be equal for figures of two runs to be comparable at all."""
    names = [
        line.split(":", 1)[1].strip()
        for line in _read("/proc/cpuinfo").splitlines()
        if line.startswith(("model name", "CPU part"))
    ]
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "index_core": core,
    }


def read_load() -> float:
    """Runnable processes a processor, over the last minute."""
    return os.getloadavg()[0] / max(1, os.cpu_count() or 1)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
