# ruff: noqa: INP001
"""Writes the seeds of the fuzz targets: payloads in every form of the wire, and snapshots of cores that applied them.

    python native/fuzz/seeds.py

The seeds go to corpus/apply and corpus/restore beside this file.
"""

import random
from pathlib import Path

import msgpack

from kvsync_indexer.core import make_core

HERE = Path(__file__).parent / "corpus"
# Bytes of a snapshot's header and checksum, which the fuzz target adds itself.
HEAD, TAIL = 32, 8


def event(rng: random.Random, known: list[int | bytes]) -> dict:
    """An event in the map form; the hashes that it stores are added to `known`."""
    kind = rng.choice(["BlockStored"] * 6 + ["BlockRemoved"] * 2 + ["AllBlocksCleared"])
    if kind == "AllBlocksCleared":
        return {"type": kind}
    medium = rng.choice(["GPU", "GPU", "CPU", None])
    if kind == "BlockRemoved":
        return {"type": kind, "block_hashes": rng.choices(known, k=2), "medium": medium}
    hashes = [rng.choice([rng.getrandbits(64), rng.randbytes(32)]) for _ in range(rng.randint(1, 3))]
    parent = rng.choice([None, rng.choice(known)])
    known += hashes
    fields = {
        "type": kind,
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": [rng.choice([7, 300, 70_000]) for _ in range(2 * len(hashes))],
        "block_size": rng.choice([2, 2, 2, 0]),
        "lora_id": rng.choice([None, None, 3]),
        "medium": medium,
        "lora_name": rng.choice([None, None, "x"]),
    }
    if rng.random() < 0.5:
        fields |= {
            "extra_keys": [rng.choice([None, ["salt"], [["image", 4]]]) for _ in hashes],
            "group_idx": rng.choice([0, 1]),
            "kv_cache_spec_kind": rng.choice(["full_attention", "sliding_window"]),
            "kv_cache_spec_sliding_window": rng.choice([None, 5]),
        }
    return fields


def payload(rng: random.Random, known: list[int | bytes]) -> bytes:
    """A batch of up to three events, in the map or the array form."""
    events: list = [event(rng, known) for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.3:
        events = [list(one.values()) for one in events]
    return msgpack.packb([1.5, events, rng.choice([None, 0])])


def main() -> None:
    """Write 200 seeds for each target."""
    for name in ("apply", "restore"):
        (HERE / name).mkdir(parents=True, exist_ok=True)
    for seed in range(200):
        rng = random.Random(seed)
        known: list[int | bytes] = [1, 2]
        payloads = [payload(rng, known) for _ in range(rng.randint(1, 6))]
        framed = b"".join(len(one).to_bytes(2, "little") + one for one in payloads)
        (HERE / "apply" / f"seed-{seed}").write_bytes(framed)
        core = make_core("auto")
        core.add_publisher("a", "m")
        for one in payloads:
            core.apply("a", one)
        (HERE / "restore" / f"seed-{seed}").write_bytes(core.snapshot()[HEAD:-TAIL])


if __name__ == "__main__":
    main()
