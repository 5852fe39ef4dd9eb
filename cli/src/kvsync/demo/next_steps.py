"""The commands that a reader can try next, with the addresses of this run."""

import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvsync.local.addresses import EVENTS_PORT, REPLAY_PORT
from kvsync.local.detached_run import DEFAULT_FOLDER


@dataclass(frozen=True, slots=True)
class KeptRun:
    """What a demo left running."""

    index_url: str
    router_url: str
    engine_hosts: Mapping[str, str]
    cached_prompt: str | None
    """A prompt of words that an engine holds."""


def find_program() -> str:
    """Return what to type to run this program: its name if the shell finds it, otherwise the path that was typed."""
    name = Path(sys.argv[0]).name
    found = shutil.which(name)
    return name if found and Path(found).samefile(sys.argv[0]) else sys.argv[0]


def list_next_steps(kept: KeptRun | None, out: Path, restarted: str | None, program: str) -> list[tuple[str, str]]:
    """Return pairs of a purpose and a command or address, which work as they stand.

    Args:
        kept: The run that was left running, or None.
        out: The folder of the demo.
        restarted: The engine that was killed; its stream does not begin at the beginning.
        program: What to type to run `kvsync`.
    """
    folder = "" if out == DEFAULT_FOLDER else f" --out {shlex.quote(str(out))}"
    if kept is None:
        return [("Run it again and leave everything running, to ask questions", f"{program} demo --keep{folder}")]
    host = next((host for name, host in kept.engine_hosts.items() if name != restarted), "")
    host = host or next(iter(kept.engine_hosts.values()))
    index = f"--index {kept.index_url}"
    steps = []
    if kept.cached_prompt:
        command = f"{program} match {index} {shlex.quote(kept.cached_prompt)}"
        steps.append(("Ask the index which engine holds a prompt that one of them has cached", command))
    return [
        *steps,
        ("Watch the index in a browser", f"{kept.index_url}/ui"),
        ("Compare the index with the engines' own block tables", f"{program} audit {index}"),
        (
            "Read an engine's events as the index does",
            f"{program} tail tcp://{host}:{EVENTS_PORT} --replay tcp://{host}:{REPLAY_PORT}",
        ),
        ("End everything", f"{program} stop{folder}"),
    ]
