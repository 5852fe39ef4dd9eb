"""Runs the command as a user does, writes traces for it, and looks for processes that it may have left."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvsync.main import main

KVSYNC = str(Path(sys.executable).parent / "kvsync")


def kvsync(*args, cwd=None, timeout=110):
    """Run `kvsync ARGS` in a process and return (exit code, stdout, stderr)."""
    done = subprocess.run(
        [KVSYNC, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    return done.returncode, done.stdout, done.stderr


def invoke(*args, cwd=None):
    """Run `kvsync ARGS` in this process, which is ten times as fast, for commands that start no processes."""
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
    finally:
        os.chdir(before)
    return ended.value.code, out.getvalue(), err.getvalue()


def one_line(stderr):
    """Return the only line of stderr, and fail if there are others."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    return lines[0]


def write_trace(path, requests=120, prefixes=12, prefix_blocks=10, own_blocks=2, gap_ms=100, blocks=512):
    """Write a trace whose requests share `prefixes` prefixes, in a fixed order without a period of 2, 3 or 4."""
    lines, own = [], 1_000_000
    for number in range(requests):
        prefix = (number * number + number // 5) % prefixes
        ids = [prefix * 1000 + block for block in range(prefix_blocks)] + [own + block for block in range(own_blocks)]
        own += own_blocks
        line = {"timestamp": number * gap_ms, "input_length": len(ids) * blocks, "output_length": 64, "hash_ids": ids}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n")
    return path


def descendants_mentioning(text):
    """Return the pids of live processes whose command line contains `text`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if text in command and state != "Z" and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
