"""The commands of the local backend: an engine and an index, each for an address and ports of its own."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from kvsync_testkit.chaos.load import MODEL
from kvsync_testkit.chaos.processes import Process
from kvsync_testkit.chaos.system import Shape

BIN = Path(sys.executable).parent
STALE_AFTER = "5s"
_HOST_TIER = ("--mock-host-blocks", "512", "--mock-tier-transfers", "instant")


@dataclass
class Component:
    """One process and where it listens."""

    process: Process
    address: str
    inside: tuple[str, ...]
    ports: list[int]
    """HTTP; of an engine also events and replay."""


def engine_command(part: Component, shape: Shape) -> list[str]:
    """Return the command of a mock engine."""
    http, events, replay = part.ports
    config = {
        "enable_kv_cache_events": True,
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replay}",
        "buffer_steps": shape.buffer_steps,
    }
    return [
        *part.inside, str(BIN / "kvsync-mockpod"), "--model", MODEL, "--host", part.address, "--port", str(http),
        "--num-gpu-blocks-override", "256", "--max-model-len", "1024", "--mock-debug",
        "--enable-prompt-tokens-details", "--kv-events-config", json.dumps(config),
        *(_HOST_TIER if shape.tiers else ()),
    ]  # fmt: skip


def index_command(part: Component, publishers: Path, volume: Path | None) -> list[str]:
    """Return the command of an index, which writes snapshots if it has a volume."""
    snapshots = [] if volume is None else ["--snapshot-dir", str(volume), "--snapshot-interval", "1s"]
    return [
        *part.inside, str(BIN / "kvsync-indexer"), "--host", part.address, "--port", str(part.ports[0]),
        "--publishers", str(publishers), "--stale-after", STALE_AFTER, *snapshots,
    ]  # fmt: skip
