"""Makes a diverging schedule as short as possible: first fewer rows, then simpler ones, as long as it still diverges.

Rows after the first differing step cannot matter, so every success removes them. Then rows are removed in halves,
quarters and so on down to single ones, and finally fields and numbers are reduced, including the size of the cache.
"""

import json
import time

OPTIONAL = ("priority", "cache_salt", "lora", "eos_at", "ignore_eos", "stop_token_ids", "output_token_ids")
OPTIONAL += ("report_mode", "abort_at_step", "abort_during_step")
KNOBS = ("watermark", "long_prefill_token_threshold", "policy", "max_loras", "enable_chunked_prefill")
KNOBS += ("scheduler_reserve_full_isl", "enable_prefix_caching", "async_scheduling", "hash_algo")


def shrink(rows, differs_at, budget=600, seconds=240.0, clock=time.monotonic):
    """The smallest schedule found that still diverges.

    `differs_at(rows)` returns the first step that differs, or None. It is called at most `budget` times, never twice
    for the same rows, and not after `seconds`.
    """
    search = _Search(rows, differs_at, budget, clock() + seconds, clock)
    search.cut()
    search.fewer()
    before = None
    while before != search.rows and search.may_ask():
        before = search.rows
        search.simpler()
        search.fewer()
    return search.rows


class _Search:
    """The smallest schedule so far and the remaining number of calls."""

    def __init__(self, rows, differs_at, budget, deadline, clock):
        self.rows = rows
        self._differs_at = differs_at
        self._left = budget
        self._deadline = deadline
        self._clock = clock
        self._asked = {json.dumps(rows)}

    def may_ask(self):
        return self._left > 0 and self._clock() < self._deadline

    def take(self, candidate):
        """Whether a candidate diverges.

        If it does, it becomes the smallest schedule, without the rows after its divergence.
        """
        step = self._ask(candidate)
        if step is None:
            return False
        self.rows = candidate
        self._cut_after(step)
        return True

    def cut(self):
        """Cut the first schedule, whose point of divergence is not known yet."""
        self._asked.clear()
        self.take(self.rows)

    def fewer(self):
        """Remove rows in halves, quarters and so on down to single ones, the last rows first."""
        size = max((len(self.rows) - 1) // 2, 1)
        while size and self.may_ask():
            end = len(self.rows)
            while end > 1 and self.may_ask():
                start = max(end - size, 1)
                self.take(self.rows[:start] + self.rows[end:])
                end = min(start, len(self.rows))
            size //= 2

    def simpler(self):
        """Drop optional fields, shorten prompts and outputs, and move steps earlier, one change at a time."""
        at = 0
        while at < len(self.rows) and self.may_ask():
            before, after = self.rows[:at], self.rows[at + 1 :]
            if not any(self.take([*before, change, *after]) for change in _changes(self.rows[at])):
                at += 1

    def _ask(self, candidate):
        key = json.dumps(candidate)
        if key in self._asked or not any("id" in row for row in candidate) or not self.may_ask():
            return None
        self._asked.add(key)
        self._left -= 1
        return self._differs_at(candidate)

    def _cut_after(self, step):
        early = [row for row in self.rows if row.get("arrival_step", row.get("step", 0)) <= step]
        if len(early) < len(self.rows) and self._ask(early) is not None:
            self.rows = early


def _changes(row):
    """Simpler forms of one row, the largest change first."""
    if "engine" in row:
        engine = row["engine"]
        yield from ({"engine": _without(engine, name)} for name in KNOBS if name in engine)
        yield from ({"engine": _with_blocks(engine, n)} for n in _smaller(engine["num_gpu_blocks"], 4))
    elif "id" in row:
        yield from (_without(row, name) for name in OPTIONAL if name in row)
        yield from (row | {"max_tokens": n} for n in _smaller(row["max_tokens"], 1))
        yield from (row | {"arrival_step": n} for n in _smaller(row["arrival_step"], 0))
        yield from _shorter_prompts(row)
    else:
        yield from (row | {"step": n} for n in _smaller(row["step"], 0))


def _with_blocks(engine, blocks):
    """A smaller cache, which fewer requests fill."""
    longest = min(engine["max_model_len"], (blocks - 1) * engine["block_size"])
    return engine | {"num_gpu_blocks": blocks, "max_model_len": longest}


def _without(values, name):
    return {k: v for k, v in values.items() if k != name}


def _smaller(number, least):
    """The smallest value, then values that approach the number: a bisection if they are tried in turn."""
    gap = (number - least) // 2
    tried = [least] if least < number else []
    while gap > 0:
        tried.append(number - gap)
        gap //= 2
    return [n for i, n in enumerate(tried) if least <= n < number and n not in tried[:i]]


def _shorter_prompts(row):
    for i, part in enumerate(row["prompt"]):
        for n in _smaller(part["n"], 0):
            shorter = [part | {"n": n}] if n else []
            yield row | {"prompt": [*row["prompt"][:i], *shorter, *row["prompt"][i + 1 :]]}
