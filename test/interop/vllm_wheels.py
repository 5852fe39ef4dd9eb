"""Downloads released vLLM wheels and keeps the few files of each that the comparison executes.

A wheel has some 400 MB and imports torch, but only a few pure Python files are compared. Each wheel is therefore
downloaded with pip, these files are extracted into the user's cache folder, and the wheel is deleted again.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WANTED = (
    "vllm/distributed/kv_events.py",
    "vllm/v1/core/kv_cache_utils.py",
    "vllm/utils.py",
    "vllm/utils/__init__.py",
    "vllm/utils/hashing.py",
)
_PLATFORMS = tuple(f"manylinux{name}_x86_64" for name in ("1", "2014", "_2_28", "_2_31", "_2_34", "_2_35"))


class FetchError(Exception):
    """A wheel could not be downloaded; the message says why."""


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/kvsync/vllm`, with one folder per version."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kvsync" / "vllm"


def ensure_source(version: str) -> Path:
    """The folder with the files of this vLLM version, which is downloaded if it is missing. Raises FetchError."""
    target = cache_folder() / version
    if not (target / WANTED[0]).is_file():
        with tempfile.TemporaryDirectory(prefix="vllm-", dir=_made(cache_folder())) as work:
            _download(version, Path(work))
            _extract(Path(work), Path(work) / "source")
            shutil.rmtree(target, ignore_errors=True)
            (Path(work) / "source").rename(target)
    return target


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _download(version: str, work: Path) -> None:
    """Download wheels only, without dependencies and for any platform: the files are the same in all of them."""
    command = [*_pip(), "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--python-version", "3.11", *(f"--platform={name}" for name in _PLATFORMS)]
    command += ["--dest", str(work), f"vllm=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise FetchError(f"vLLM {version} could not be downloaded: {lines[-1] if lines else 'pip failed'}")


def _pip() -> list[str]:
    """pip as a module of this Python, or run by uv, or the one on the path."""
    if subprocess.run([sys.executable, "-c", "import pip"], capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip"]
    bundled = Path(__file__).parents[2] / ".tools" / "bin" / "uv"
    uv = shutil.which("uv") or (str(bundled) if bundled.is_file() else None)
    if uv:
        return [uv, "tool", "run", "pip"]
    found = shutil.which("pip3") or shutil.which("pip")
    if found:
        return [found]
    raise FetchError("neither pip nor uv is available to download vLLM")


def _extract(work: Path, source: Path) -> None:
    (wheel,) = work.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        present = set(archive.namelist())
        for name in WANTED:
            if name in present:
                archive.extract(name, source)
    wheel.unlink()
