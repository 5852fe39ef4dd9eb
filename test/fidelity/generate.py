"""Random schedules by seed, small enough to run hundreds and mixed so that all rules interact.

A schedule is the rows of a scenario file (see docs/design/scheduler.md). The engine's options are drawn first, then
requests that share prefixes, end on block edges, stop early, are aborted in every state, compete for LoRA slots and
overcommit the cache, and finally cache resets and pauses.
"""

import random
import zlib


def generate(seed):
    """The rows of the schedule with this seed."""
    rng = random.Random(f"kvsync-fidelity-{seed}")
    engine = _engine(rng)
    requests = _requests(rng, engine)
    last = max(r["arrival_step"] for r in requests)
    return [{"engine": engine}, *_controls(rng, last, requests), *requests]


def _engine(rng):
    size = rng.choice([4, 8, 16, 16, 16, 32])
    blocks = rng.choice([12, 16, 24, 40, 64, 120, 400])
    max_len = rng.randint(min(3 * size, (blocks - 1) * size), min((blocks - 1) * size, 700))
    seqs = rng.choice([1, 2, 4, 8, 16])
    budget = max(rng.choice([16, 24, 48, 100, 160, 256]), seqs)
    engine = {
        "block_size": size,
        "num_gpu_blocks": blocks,
        "max_model_len": max(max_len, 2),
        "max_num_seqs": seqs,
        "max_num_batched_tokens": budget,
        "policy": rng.choice(["fcfs", "fcfs", "priority"]),
        "async_scheduling": rng.random() < 0.5,
        "scheduler_reserve_full_isl": rng.random() < 0.7,
        "enable_prefix_caching": rng.random() < 0.93,
        "max_loras": rng.choice([0, 0, 0, 1, 2]),
        "hash_algo": rng.choice(["sha256", "sha256_cbor"]),
    }
    if rng.random() < 0.3:
        engine["watermark"] = rng.choice([0.02, 0.08, 0.2])
    if rng.random() < 0.3:
        engine["long_prefill_token_threshold"] = min(rng.choice([3, 16, 30, 48]), engine["max_model_len"])
    if rng.random() < 0.1:
        engine["enable_chunked_prefill"] = False
        engine["max_num_batched_tokens"] = max(budget, engine["max_model_len"])
    return engine


def _requests(rng, engine):
    size, max_len = engine["block_size"], engine["max_model_len"]
    streams = [100 + i for i in range(rng.randint(1, 5))]
    pace = rng.choice([[0], [0, 0, 1], [0, 1, 2, 5], [0, 3, 9]])
    step, rows = 0, []
    for i in range(rng.choice([4, 12, 24, 40])):
        step += rng.choice(pace)
        row = {"id": f"r{i}", "arrival_step": step, "prompt": _prompt(rng, rows, streams, size, max_len, i)}
        row["max_tokens"] = rng.choice([1, 2, size, size + 1, rng.randint(1, 30), rng.randint(1, 90), max_len])
        _stops(rng, row)
        _aborts(rng, row, step)
        if rng.random() < 0.5:
            row["priority"] = rng.choice([-1, 0, 1, 1, 5])
        if rng.random() < 0.15:
            row["cache_salt"] = rng.choice(["red", "blue"])
        if engine["max_loras"] and rng.random() < 0.5:
            row["lora"] = f"adapter{rng.randrange(3)}"
        if rng.random() < 0.08:
            row["report_mode"] = "full"
        rows.append(row)
    return rows


def _prompt(rng, rows, streams, size, max_len, index):
    kind = rng.random()
    if rows and kind < 0.2:  # a next turn: an earlier prompt, its answer and new tokens
        earlier = rng.choice(rows)
        answer = {"prefix_id": (1 << 48) + zlib.crc32(earlier["id"].encode()), "n": min(earlier["max_tokens"], 40)}
        parts = [*earlier["prompt"], answer, {"prefix_id": 5000 + index, "n": rng.randint(1, 2 * size)}]
    elif kind < 0.45:  # whole blocks only, or one token more or less
        n = size * rng.randint(1, 6) + rng.choice([0, 0, 0, -1, 1])
        parts = [{"prefix_id": rng.choice(streams), "n": max(n, 1)}]
    else:
        parts = [
            {"prefix_id": rng.choice(streams), "n": rng.randint(0, 8) * rng.choice([size, 7])},
            {"prefix_id": 9000 + index, "n": rng.randint(1, 3 * size)},
        ]
    over = sum(p["n"] for p in parts) - (max_len - 1)
    if rng.random() < 0.95:  # the others stay too long and are refused
        while over > 0 and parts:
            cut = min(over, parts[-1]["n"])
            parts[-1] = parts[-1] | {"n": parts[-1]["n"] - cut}
            over -= cut
            if not parts[-1]["n"]:
                parts.pop()
    return parts


def _stops(rng, row):
    if rng.random() < 0.25:
        row["eos_at"] = rng.randint(0, 20)
        if rng.random() < 0.3:
            row["max_tokens"] = row["eos_at"] + 1
    if rng.random() < 0.15:
        row["ignore_eos"] = True
    if rng.random() < 0.1:
        row["output_token_ids"] = [rng.randint(3, 9) for _ in range(6)]
        row["stop_token_ids"] = [rng.randint(3, 9)]


def _aborts(rng, row, step):
    kind = rng.random()
    if kind < 0.05:
        row["abort_at_step"] = step
    elif kind < 0.12:
        row["abort_at_step"] = step + rng.randint(1, 40)
    elif kind < 0.2:
        row["abort_during_step"] = step + rng.randint(0, 40)


def _controls(rng, last, requests):
    rows = []
    while rng.random() < 0.25:
        args = {"reset_running_requests": True} if rng.random() < 0.5 else {}
        rows.append({"control": "reset_prefix_cache", "step": rng.randint(0, last + 30), "args": args})
    while rng.random() < 0.2:
        step = rng.randint(0, last + 20)
        pause = {"control": "pause", "step": step, "args": {"level": rng.choice(["new", "all"])}}
        resume = {"control": "resume", "step": step + rng.randint(1, 30)}
        # Aborts that a pause holds back are applied together, which vLLM does in no particular order.
        held = [r for r in requests if step <= r.get("abort_during_step", -1) <= resume["step"]]
        if len(held) < 2:
            rows += [pause, resume]
    return rows
