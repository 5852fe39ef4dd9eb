"""Reads the golden vectors, with bytes from their hex form and events as classes of the package."""

import json
from pathlib import Path

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored

FOLDER = Path(__file__).parent / "vectors"
CLASSES = {"BlockStored": BlockStored, "BlockRemoved": BlockRemoved, "AllBlocksCleared": AllBlocksCleared}


def load(name):
    return plain(json.loads((FOLDER / f"{name}.json").read_text()))


def plain(value):
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"]) if set(value) == {"hex"} else {k: plain(v) for k, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def as_tuples(value):
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def build_event(fields):
    fields = dict(fields)
    kind = CLASSES[fields.pop("type")]
    if fields.get("extra_keys") is not None:
        fields["extra_keys"] = [as_tuples(entry) for entry in fields["extra_keys"]]
    if kind is BlockStored:
        fields.setdefault("parent_block_hash", None)
    return kind(**fields)
