"""Creates an environment in which vLLM's engine core can be imported, and keeps it in the user's cache folder.

The vLLM wheel is installed without its dependencies, followed by those of its requirements that the engine core
imports, in the versions that the wheel asks for. About 3.4 GB are downloaded and 6.5 GB stay on disk; no GPU is needed.
Packages come from the index that pip is configured for.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = """
aiohttp blake3 cachetools cbor2 cloudpickle diskcache einops fastapi gguf llguidance msgspec numpy openai openai-harmony
oss-harmony opentelemetry-api packaging partial-json-parser pillow prometheus-client protobuf psutil py-cpuinfo pybase64
pydantic pyyaml pyzmq regex requests setproctitle torch tqdm transformers uvloop xgrammar
"""
"""The packages that importing `vllm.v1.engine.core` needs."""

UNLISTED = {"packaging", "uvloop", "opentelemetry-api"}
"""Packages that are needed although some versions do not list them."""

PROBE = "import vllm.v1.engine.core, vllm.v1.core.sched.scheduler, vllm; print(vllm.__version__)"


class EnvironmentFailedError(Exception):
    """The environment cannot be created or used; the message is one line."""


def ensure_environment(version, given=None):
    """The Python of an environment with this vLLM version: the given one, or one created in the cache folder."""
    if given is not None:
        python = Path(given)
        python = python / "bin" / "python" if python.is_dir() else python
        _check(python, version)
        return python
    folder = _cache() / f"vllm-{version}-py{sys.version_info.major}{sys.version_info.minor}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"fetching vLLM {version} into {folder} (about 3.4 GB, once)", file=sys.stderr, flush=True)
        _make(folder, python, version)
        _check(python, version)
        (folder / "complete").touch()
    return python


def _cache():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kvsync"


def _make(folder, python, version):
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    pip = [str(python), "-m", "pip", "install", "-q", "--no-cache-dir", "--only-binary", ":all:"]
    _run([*pip, "--no-deps", f"vllm=={version}"])
    listed = _run([str(python), "-c", "from importlib.metadata import requires; print(*requires('vllm'), sep='\\n')"])
    _run([*pip, *_requirements(listed.splitlines())])


def _requirements(listed):
    """The requirements of the wheel that the engine core needs, without their extras."""
    wanted = {}
    for line in listed:
        name = re.match(r"[A-Za-z0-9_.-]+", line)
        if name and "extra ==" not in line:
            wanted.setdefault(name.group(0).lower().replace("_", "-"), re.sub(r"\[.*?\]", "", line, count=1))
    return [wanted.get(name, name) for name in NEEDED.split() if name in wanted or name in UNLISTED]


def _check(python, version):
    if not python.exists():
        raise EnvironmentFailedError(f"{python} does not exist")
    env = os.environ | {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    found = _run([str(python), "-W", "ignore", "-c", PROBE], env=env).split()[-1]
    if found != version:
        raise EnvironmentFailedError(f"{python} has vLLM {found}, not {version}")


def _run(command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise EnvironmentFailedError(f"{' '.join(command[:4])} … failed: {reason}")
    return done.stdout
