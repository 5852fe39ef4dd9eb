"""Describes where a run takes place: the machine, the checkout, and the environment of a base revision.

A base is unpacked from git's objects into `out/benchmark/base-<commit>` and set up there by its own `hack/setup.sh`. It
is not a git worktree, so that nothing is registered in the repository and a dirty tree does not matter. A missing
`.ready` marks an interrupted set-up, which is started again. Only the last base is kept.
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
"""Runnable processes per processor above which wall-clock figures include the effect of other processes."""


def git(*arguments: str, root: Path = ROOT) -> str:
    """Return the output of a git command.

    Raises:
        click.ClickException: with the last line that git printed.
    """
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
    """The commit that is measured, and whether the tree differs from it. Outside a git checkout the commit is empty."""

    commit: str
    dirty: bool

    def __str__(self) -> str:
        return f"{self.commit[:12] or 'no commit'}{' and changes' if self.dirty else ''}"


def read_head(root: Path = ROOT) -> Head:
    """Return the state of the checkout."""
    try:
        return Head(git("rev-parse", "HEAD", root=root), bool(git("status", "--porcelain", root=root)))
    except click.ClickException:
        return Head("", dirty=False)


def choose_base(asked: str | None, head: Head, root: Path = ROOT) -> tuple[str, str]:
    """Return `(commit, why)`. An empty commit means that there is no base, and `why` says why not.

    Unless a revision was asked for, the base is HEAD if the tree has changes, otherwise the commit where the branch
    left `origin/main`, otherwise the parent commit.

    Raises:
        click.ClickException: the revision does not exist.
    """
    if asked:
        return git("rev-parse", "--verify", f"{asked}^{{commit}}", root=root), asked
    if not head.commit:
        return "", "this is not a git checkout"
    if head.dirty:
        return head.commit, "HEAD, since the tree has changes"
    for arguments, why in (
        (("merge-base", "HEAD", "origin/main"), "where this branch left origin/main"),
        (("rev-parse", "--verify", "HEAD~1^{commit}"), "the parent commit"),
    ):
        try:
            commit = git(*arguments, root=root)
        except click.ClickException:
            continue
        if commit != head.commit:
            return commit, why
    return "", "the checkout has no earlier commit (a shallow clone?)"


def prepare_base(commit: str, out: Path, root: Path = ROOT) -> Path:
    """Set up an environment of `commit` in `out` and return its interpreter.

    Raises:
        click.ClickException: the set-up failed.
    """
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
        raise click.ClickException(f"set-up of the base failed: {_last_line(log.read_text())} (log: {log})")
    ready.touch()
    return folder / ".venv/bin/python"


def _unpack(commit: str, folder: Path, root: Path) -> None:
    archive = subprocess.run(["git", "archive", "--format=tar", commit], cwd=root, capture_output=True, check=False)
    if archive.returncode:
        raise click.ClickException(f"git archive {commit}: {_last_line(archive.stderr.decode())}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


@contextmanager
def exclusive(out: Path) -> Iterator[None]:
    """Hold the lock on `out` during the block.

    Raises:
        click.ClickException: another run holds the lock.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise click.ClickException(f"another benchmark run is writing to {out}") from None
        yield


def read_fingerprint(core: str) -> dict[str, object]:
    """Return the properties of the environment that must be equal for two runs to be comparable."""
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
    """Return the number of runnable processes per processor over the last minute."""
    return os.getloadavg()[0] / max(1, os.cpu_count() or 1)


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
