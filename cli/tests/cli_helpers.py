"""Running the command as a user does, traces to run it on, and processes to look for afterwards."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvsync.main import main

KVSYNC = str(Path(sys.executable).parent / "kvsync")


def kvsync(*args, cwd=None, timeout=110):
    """Run `kvsync ARGS`; (exit code, stdout, stderr)."""
    done = subprocess.run(
        [KVSYNC, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False
    )
    return done.returncode, done.stdout, done.stderr


def invoke(*args, cwd=None):
    """The same in this process, for what starts nothing: ten times as fast."""
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
    """The only line of stderr; no traceback, nothing else."""
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    return lines[0]


def write_trace(path, requests=120, prefixes=12, prefix_blocks=10, own_blocks=2, gap_ms=100, blocks=512):
    """A trace whose requests share `prefixes` prefixes, in a fixed order without a period of 2, 3 or 4."""
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
    """Pids of live processes whose command line has `text`."""
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


def wait_until(condition, what, deadline_s=30.0):
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


__all__ = [
    "KVSYNC",
    "descendants_mentioning",
    "kvsync",
    "one_line",
    "signal",
    "subprocess",
    "wait_until",
    "write_trace",
]
