# ruff: noqa: INP001  (a script that the Dockerfiles copy, not a package)
"""The last step of the build stage of an image, which makes the installed folder small, reproducible and fast to start.

It removes tests and type stubs of dependencies, and gives all files the same time stamp. It compiles the byte code,
because the root file system of the container is read-only, in the form that does not depend on time stamps.

    finish.py OUT        OUT/app contains the installed packages; OUT is copied to the root of the final image
"""

import compileall
import os
import py_compile
import shutil
import sys
from pathlib import Path

EPOCH = 1735689600  # 2025-01-01; any fixed time is suitable
UNUSED_FOLDERS = ("tests", "test", "testing", "__pycache__")
UNUSED_SUFFIXES = (".pyi", ".pxd", ".pyx", ".c", ".h", ".cpp", ".hpp")
UNUSED_PACKAGES = ("kubernetes/aio",)  # the asynchronous variant of the official client, half of its size
KEEP_UNDER = ("prometheus_client", "kopf")  # these packages import their own test helpers


def prune(app: Path) -> None:
    """Remove the files that no running program reads."""
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
            (record / name).unlink(missing_ok=True)  # they contain paths and hashes of removed files


def stamp(root: Path) -> None:
    """Give `root` and every entry below it the same time stamp, and make them readable for everyone."""
    for entry in [root, *root.rglob("*")]:
        executable = entry.is_dir() or os.access(entry, os.X_OK)
        entry.chmod(0o755 if executable else 0o644)
        os.utime(entry, (EPOCH, EPOCH))


def main() -> None:
    """Process the folder that the command line names."""
    out = Path(sys.argv[1])
    app = out / "app"
    prune(app)
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(app, quiet=1, invalidation_mode=mode, stripdir=str(out), prependdir="/", workers=1):
        sys.exit(f"finish: a file below {app} does not compile")
    stamp(out)


if __name__ == "__main__":
    main()
