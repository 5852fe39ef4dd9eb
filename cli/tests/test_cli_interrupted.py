"""Ctrl-C while an entry point imports its modules: one line and exit code 130, whichever import it meets."""

import subprocess
import sys
from importlib.metadata import entry_points

import pytest
from cli_helpers import one_line

PROGRAMS = sorted(
    (point for point in entry_points(group="console_scripts") if point.module.startswith("kvsync")),
    key=lambda point: point.name,
)
INTERRUPTED = """
import os, signal, sys
from importlib import import_module

class Interrupter:
    left = {after}

    def find_spec(self, name, path=None, target=None):
        Interrupter.left -= 1
        if Interrupter.left == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return None

program = import_module("{module}").main
sys.argv = ["{name}", *{arguments}]
sys.meta_path.insert(0, Interrupter())
program()
raise SystemExit("ended without an interruption")
"""


def interrupted(point, after, arguments=("--help",)):
    code = INTERRUPTED.format(after=after, module=point.module, name=point.name, arguments=list(arguments))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False)


def test_every_program_is_here():
    assert [point.name for point in PROGRAMS] == [
        "kvsync",
        "kvsync-epp",
        "kvsync-indexer",
        "kvsync-mockpod",
        "kvsync-operator",
        "kvsync-router",
    ]


@pytest.mark.parametrize("point", PROGRAMS, ids=lambda point: point.name)
@pytest.mark.parametrize("after", [1, 20, 60])
def test_an_interrupted_import_is_one_line(point, after):
    done = interrupted(point, after)
    assert done.returncode == 130, done.stderr
    assert one_line(done.stderr) == f"{point.name}: interrupted"


@pytest.mark.parametrize("after", [60, 200, 400])
def test_an_interrupted_command_is_one_line_too(after):
    kvsync = next(point for point in PROGRAMS if point.name == "kvsync")
    done = interrupted(kvsync, after, ("demo", "--help"))
    assert done.returncode == 130, done.stderr
    assert one_line(done.stderr) == "kvsync: interrupted"


@pytest.mark.parametrize("point", PROGRAMS, ids=lambda point: point.name)
def test_nothing_but_the_standard_library_is_imported_before(point):
    code = f"import sys; import {point.module}; print(*(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=100, check=True)
    loaded = set(done.stdout.split()) - set(sys.stdlib_module_names)
    allowed = {
        "kvsync",
        "kvsync_entry",
        "kvsync_indexer",
        "kvsync_mockpod",
        "kvsync_operator",
        "kvsync_router",
        "sitecustomize",
    }
    assert {name for name in loaded - allowed if not name.startswith(("_", "distutils"))} == set()
