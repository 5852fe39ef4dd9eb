"""Makes a diverging schedule as short as it gets: fewer requests, then simpler ones, as long as it still diverges."""


def shrink(rows, diverges, step, budget=200):
    """The smallest schedule found that still diverges, asking `diverges(rows)` at most `budget` times.

    What arrives after `step`, the first that differs, is tried without at once.
    """
    left = [budget]

    def still(candidate):
        if left[0] <= 0:
            return False
        left[0] -= 1
        return diverges(candidate)

    early = [row for row in rows if row.get("arrival_step", row.get("step", 0)) <= step]
    if len(early) < len(rows) and still(early):
        rows = early
    rows = _fewer(rows, still)
    before = None
    while before != rows and left[0] > 0:
        before = rows
        rows = _simpler(rows, still)
        rows = _fewer(rows, still)
    return rows


def _fewer(rows, still):
    """Remove rows in halves, quarters, … down to single ones."""
    engine, rest = rows[0], rows[1:]
    size = max(len(rest) // 2, 1)
    while size:
        at = 0
        while at < len(rest):
            candidate = rest[:at] + rest[at + size :]
            if any("id" in row for row in candidate) and still([engine, *candidate]):
                rest = candidate
            else:
                at += size
        size //= 2
    return [engine, *rest]


def _simpler(rows, still):
    """Drop optional fields, shorten prompts and outputs, move arrivals earlier, one change at a time."""
    for at in range(len(rows)):
        for change in _changes(rows[at]):
            candidate = [*rows[:at], change, *rows[at + 1 :]]
            if still(candidate):
                rows = candidate
    return rows


OPTIONAL = ("priority", "cache_salt", "lora", "eos_at", "ignore_eos", "stop_token_ids", "output_token_ids")
OPTIONAL += ("report_mode", "abort_at_step", "abort_during_step")
KNOBS = ("watermark", "long_prefill_token_threshold", "policy", "max_loras")


def _changes(row):
    """Simpler forms of one row."""
    if "engine" in row:
        for name in KNOBS:
            if name in row["engine"]:
                yield {"engine": _without(row["engine"], name)}
    elif "id" in row:
        for name in OPTIONAL:
            if name in row:
                yield _without(row, name)
        yield from (row | {"max_tokens": n} for n in _smaller(row["max_tokens"], 1))
        yield from (row | {"arrival_step": n} for n in _smaller(row["arrival_step"], 0))
        yield from _shorter_prompts(row)


def _without(values, name):
    return {k: v for k, v in values.items() if k != name}


def _smaller(number, least):
    return [n for n in (least, number // 2, number - 1) if least <= n < number]


def _shorter_prompts(row):
    for i, part in enumerate(row["prompt"]):
        for n in _smaller(part["n"], 0):
            shorter = [part | {"n": n}] if n else []
            yield row | {"prompt": [*row["prompt"][:i], *shorter, *row["prompt"][i + 1 :]]}
