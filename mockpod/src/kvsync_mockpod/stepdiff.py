"""Compares two step logs: the mock engine's with vLLM's, or two of the mock engine.

The comparison is strict. Every step that did something must be equal in what was scheduled (in order), hit, preempted,
finished, refused, announced (event by event, with hashes modulo 2^64 and token checksums) and left free. Only the first
divergence is reported, because everything after it is its consequence.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MASK = 0xFFFFFFFFFFFFFFFF
_FIELDS = ("scheduled", "hits", "resumed", "preempted", "finished", "refused", "events", "free")


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference: the step, the field and both values."""

    step: int
    field: str
    expected: object
    got: object

    def __str__(self) -> str:
        """The divergence as one line of text."""
        expected, got = _focus(self.expected, self.got)
        return f"step {self.step}: {self.field}: expected {_short(expected)}, got {_short(got)}"


def read_log(path: str | Path) -> Iterator[dict[str, Any]]:
    """The step records of a log file, plain or compressed (`.gz`), without heads and totals."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if "step" in record:
                yield record


def compare_logs(expected: Iterable[dict[str, Any]], got: Iterable[dict[str, Any]]) -> Divergence | None:
    """The first divergence of two logs, or None if they are equal.

    Steps in which nothing happened are ignored.
    """
    left = {r["step"]: r for r in expected if _busy(r)}
    right = {r["step"]: r for r in got if _busy(r)}
    for step in sorted(left.keys() | right.keys()):
        a, b = left.get(step), right.get(step)
        if a is None or b is None:
            return Divergence(step, "step", "nothing" if a is None else "a step", "nothing" if b is None else "a step")
        for field in _FIELDS:
            x, y = _normal(field, a.get(field)), _normal(field, b.get(field))
            if x != y:
                return Divergence(step, field, x, y)
    return None


def _busy(record: dict[str, Any]) -> bool:
    return any(record.get(name) for name in ("scheduled", "events", "preempted", "finished", "refused"))


def _normal(field: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    if field == "free":
        return value
    if field in ("hits", "resumed"):
        return value or {}
    if field == "events":
        return [_event(event) for event in value or ()]
    if field in ("finished", "refused"):  # a client cannot observe the order of several finishes in one step
        return sorted(value or ())
    return value or []


def _event(event: dict[str, Any]) -> tuple[Any, ...]:
    kind = event["type"]
    hashes = tuple(_number(h) for h in event.get("block_hashes", ()))
    if kind != "BlockStored":
        return (kind, hashes)
    parent = event.get("parent_block_hash")
    return (
        kind,
        hashes,
        None if parent is None else _number(parent),
        event.get("block_size"),
        event.get("n_tokens"),
        event.get("tokens_crc"),
        json.dumps(event.get("extra_keys")),
        event.get("lora_id"),
    )


def _number(block_hash: int | str) -> int:
    """A hash as an integer modulo 2^64; logs may contain signed or unsigned numbers or the digest in hex."""
    return (int(block_hash, 16) if isinstance(block_hash, str) else block_hash) & _MASK


def _focus(a: object, b: object) -> tuple[object, object]:
    """Reduce two lists to the first elements that differ."""
    if isinstance(a, list) and isinstance(b, list):
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        return {"at": at, "of": len(a), "is": a[at : at + 1]}, {"at": at, "of": len(b), "is": b[at : at + 1]}
    return a, b


def _short(value: object, limit: int = 200) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= limit else text[:limit] + "…"
