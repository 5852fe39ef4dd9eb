# ruff: noqa: INP001  (a script that the Dockerfiles copy, no package)
"""The last step of an image's build stage: make the installed folder small, fast to start and reproducible.

Tests and type stubs of dependencies go; byte code is compiled now, because the root file system is
read-only later, in the form that checks no time stamps; every time stamp becomes the same.

    finish.py OUT        OUT/app is what was installed; OUT is copied onto the root of the final image
"""

import compileall
import os
import py_compile
import shutil
import sys
from pathlib import Path

EPOCH = 1735689600  # 2025-01-01: any fixed moment will do
UNUSED_FOLDERS = ("tests", "test", "testing", "__pycache__")
UNUSED_SUFFIXES = (".pyi", ".pxd", ".pyx", ".c", ".h", ".cpp", ".hpp")
UNUSED_PACKAGES = ("kubernetes/aio",)  # the official client's asynchronous twin, half of its size
KEEP_UNDER = ("prometheus_client", "kopf")  # import their own test helpers


def prune(app: Path) -> None:
    """Remove what no running program reads."""
    for name in UNUSED_PACKAGES:
        shutil.rmtree(app / name, ignore_errors=True)
    for folder in sorted(app.rglob("*")):
        package = folder.relative_to(app).parts[0]
        if folder.is_dir() and folder.name in UNUSED_FOLDERS and package not in KEEP_UNDER:
            shutil.rmtree(folder)
    for file in app.rglob("*"):
        if file.is_file() and file.suffix in UNUSED_SUFFIXES:
            file.unlink()
    for record in app.glob("*.dist-info"):
        for name in ("RECORD", "direct_url.json", "INSTALLER", "REQUESTED"):
            (record / name).unlink(missing_ok=True)  # they hold paths and hashes of what was removed


def stamp(root: Path) -> None:
    """Give every entry below and including `root` the same time and readable rights."""
    for entry in [root, *root.rglob("*")]:
        executable = entry.is_dir() or os.access(entry, os.X_OK)
        entry.chmod(0o755 if executable else 0o644)
        os.utime(entry, (EPOCH, EPOCH))


def main() -> None:
    """`finish.py OUT`."""
    out = Path(sys.argv[1])
    app = out / "app"
    prune(app)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(app, quiet=1, invalidation_mode=mode, stripdir=str(out), prependdir="/", workers=1):
        sys.exit("some file does not compile")
    stamp(out)


if __name__ == "__main__":
    main()
