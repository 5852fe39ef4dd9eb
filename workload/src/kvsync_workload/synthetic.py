"""Workloads without a trace: sessions that share prefixes by a Zipf law and grow turn by turn, described in YAML.

A session picks one of `prefixes.count` system prompts (rank k with weight 1 / k^zipf) and asks a number of questions.
The prompt of each turn is the previous prompt, as many tokens as the previous answer had, and a new question. The
requests are those of an ordinary trace, so everything that replays a trace replays them.
"""

import difflib
import heapq
import random
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvsync_workload.errors import SyntheticError
from kvsync_workload.trace import TRACE_BLOCK_TOKENS, TraceRequest


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prefixes(_Model):
    """The system prompts that sessions share."""

    count: int = Field(default=20, ge=1, le=1_000_000)
    tokens: int = Field(default=2048, ge=0, le=1_000_000)
    zipf: float = Field(default=1.0, ge=0.0, le=10.0)
    """The exponent; at 0 all are equally popular."""


class Turns(_Model):
    """How a session goes on after its first question."""

    mean: float = Field(default=4.0, ge=1.0, le=1000.0)
    gap_s: float = Field(default=20.0, ge=0.0)
    """Mean time between two arrivals of one session."""
    question_tokens: int = Field(default=600, ge=1, le=1_000_000)
    """Mean; lengths are exponentially distributed."""
    answer_tokens: int = Field(default=300, ge=1, le=1_000_000)
    """Mean, as for questions."""


class Synthetic(_Model):
    """A whole workload, as its YAML file describes it."""

    requests: int = Field(default=1000, ge=1, le=10_000_000)
    sessions_per_s: float = Field(default=1.0, gt=0.0)
    prefixes: Prefixes = Prefixes()
    turns: Turns = Turns()


def read_synthetic(path: Path) -> Synthetic:
    """Read a workload from a YAML file. Raises SyntheticError naming the field and what is allowed."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Synthetic.model_validate({} if loaded is None else loaded)
    except OSError as error:
        raise SyntheticError(f"workload {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise SyntheticError(f"workload {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise SyntheticError(f"workload {path}: {_one_line(error)}") from None


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
    """The requests of the workload in order of arrival; equal seeds give equal requests."""
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
    """Numbers blocks by kind of owner, owner and position, in order of first appearance."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, int, int], int] = {}

    def of(self, kind: str, owner: int, block: int) -> int:
        return self._ids.setdefault((kind, owner, block), len(self._ids))


class _Session:
    """One conversation: a shared prefix, followed by tokens that no other session has."""

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
        request = TraceRequest(now, self._length, answer, hash_ids)
        self._length += answer
        return request
