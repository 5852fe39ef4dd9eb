"""Workloads without a trace: sessions that share prefixes by a Zipf law and grow turn by turn, described in YAML.

A session picks one of `prefixes.count` system prompts (rank k with weight 1 / k^zipf) and asks `turns` questions; each
turn's prompt is everything before it plus a new question and the previous answer's length in tokens of its own. The
result is an ordinary trace, so whatever replays a trace replays this.
"""

import difflib
import heapq
import random
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvsync.errors import TraceError
from kvsync.load.trace import TRACE_BLOCK_TOKENS, TraceRequest


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prefixes(_Model):
    """The system prompts that sessions share."""

    count: int = Field(default=20, ge=1, le=1_000_000)
    tokens: int = Field(default=2048, ge=0, le=1_000_000)
    zipf: float = Field(default=1.0, ge=0.0, le=10.0)
    """0: all equally popular."""


class Turns(_Model):
    """The conversation of one session."""

    mean: float = Field(default=4.0, ge=1.0, le=1000.0)
    gap_s: float = Field(default=20.0, ge=0.0)
    """Mean pause between an arrival and the session's next."""
    question_tokens: int = Field(default=600, ge=1, le=1_000_000)
    """Mean; lengths are exponential."""
    answer_tokens: int = Field(default=300, ge=1, le=1_000_000)


class Synthetic(_Model):
    """One workload."""

    requests: int = Field(default=1000, ge=1, le=10_000_000)
    sessions_per_s: float = Field(default=1.0, gt=0.0)
    prefixes: Prefixes = Prefixes()
    turns: Turns = Turns()


def read_synthetic(path: Path) -> Synthetic:
    """The workload in a YAML file; TraceError is one line that names the field and what is allowed."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Synthetic.model_validate({} if loaded is None else loaded)
    except OSError as error:
        raise TraceError(f"workload {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise TraceError(f"workload {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise TraceError(f"workload {path}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    if first["type"] == "extra_forbidden":
        models: dict[str, type[_Model]] = {"prefixes": Prefixes, "turns": Turns}
        known = models.get(str(first["loc"][0]), Synthetic) if len(first["loc"]) > 1 else Synthetic
        near = difflib.get_close_matches(str(first["loc"][-1]), list(known.model_fields), n=1)
        return f"unknown field {field}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{field} = {first['input']!r}: {first['msg'].lower()}"


def make_trace(workload: Synthetic, seed: int) -> list[TraceRequest]:
    """The workload's requests in order of arrival; the seed decides everything."""
    rng = random.Random(seed)
    weights = [1.0 / rank**workload.prefixes.zipf for rank in range(1, workload.prefixes.count + 1)]
    ids = _Ids()
    due: list[tuple[float, int, _Session]] = []
    next_session_s = 0.0
    started = 0
    requests: list[TraceRequest] = []
    while len(requests) < workload.requests:
        if not due or next_session_s <= due[0][0]:
            prefix = rng.choices(range(workload.prefixes.count), weights)[0]
            turns = 1 + int(rng.expovariate(1.0 / (workload.turns.mean - 1))) if workload.turns.mean > 1 else 1
            heapq.heappush(due, (next_session_s, started, _Session(prefix, workload.prefixes.tokens, turns)))
            started += 1
            next_session_s += rng.expovariate(workload.sessions_per_s)
            continue
        now, number, session = heapq.heappop(due)
        requests.append(session.ask(now, workload.turns, ids, number, rng))
        if session.turns_left:
            pause_s = rng.expovariate(1.0 / workload.turns.gap_s) if workload.turns.gap_s else 0.0
            heapq.heappush(due, (now + pause_s, number, session))
    return requests


class _Ids:
    """Block ids by whole prefix: equal (prefix or session, block number) are equal ids."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, int, int], int] = {}

    def of(self, kind: str, owner: int, block: int) -> int:
        return self._ids.setdefault((kind, owner, block), len(self._ids))


class _Session:
    """One conversation: a shared prefix, then tokens of its own."""

    def __init__(self, prefix: int, prefix_tokens: int, turns: int) -> None:
        self.turns_left = turns
        self._prefix = prefix
        self._shared_blocks = prefix_tokens // TRACE_BLOCK_TOKENS
        self._length = prefix_tokens

    def ask(self, now: float, turns: Turns, ids: _Ids, number: int, rng: random.Random) -> TraceRequest:
        self.turns_left -= 1
        self._length += 1 + int(rng.expovariate(1.0 / turns.question_tokens))
        answer = 1 + int(rng.expovariate(1.0 / turns.answer_tokens))
        blocks = -(-self._length // TRACE_BLOCK_TOKENS)
        hash_ids = tuple(
            ids.of("prefix", self._prefix, block) if block < self._shared_blocks else ids.of("session", number, block)
            for block in range(blocks)
        )
        request = TraceRequest(now * 1000, self._length, answer, hash_ids)
        self._length += answer
        return request
