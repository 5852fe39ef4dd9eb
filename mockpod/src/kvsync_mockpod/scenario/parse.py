"""Reads and validates scenario files."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kvsync_mockpod.engine import EngineConfig, EngineConfigError, LoraRef, Request
from kvsync_mockpod.errors import ScenarioError
from kvsync_mockpod.scenario.model import Control, Scenario, ScriptedRequest
from kvsync_mockpod.scenario.tokens import token

ENGINE_DEFAULTS: dict[str, Any] = {
    "block_size": 16,
    "num_gpu_blocks": 128,
    "max_num_seqs": 16,
    "max_num_batched_tokens": 256,
    "max_model_len": 2032,
    "enable_chunked_prefill": True,
    "policy": "fcfs",
    "hash_algo": "sha256_cbor",
    "hash_seed": "0",
    "async_scheduling": False,
    "scheduler_reserve_full_isl": True,
    "watermark": 0.0,
    "long_prefill_token_threshold": 0,
    "enable_prefix_caching": True,
    "vocab_size": 50000,
    "eos_token_id": 2,
    "max_loras": 0,
}
"""Values for what a scenario's engine line leaves out."""


def load_scenario(path: str | Path) -> Scenario:
    """Read a scenario file, plain or compressed (`.gz`).

    Raises:
        ScenarioError: names the file and the line.
    """
    return parse_scenario(_rows(Path(path)), str(path))


def parse_scenario(rows: Iterable[tuple[int, dict[str, Any]]], name: str = "scenario") -> Scenario:
    """Build a scenario from numbered rows; errors name `name` and the number of the row."""
    engine: dict[str, Any] = dict(ENGINE_DEFAULTS)
    step_s, engine_line = 0.02, 1
    others: list[tuple[int, dict[str, Any]]] = []
    for n, row in rows:
        if "engine" not in row:
            others.append((n, row))
            continue
        values = row["engine"]
        if not isinstance(values, dict):
            raise ScenarioError(f"{name}:{n}: engine must be an object, got {values!r:.60}")
        values = dict(values)
        step_s = values.pop("step_s", step_s)
        if not isinstance(step_s, int | float) or isinstance(step_s, bool) or step_s <= 0:
            raise ScenarioError(f"{name}:{n}: step_s must be a positive number, got {step_s!r}")
        engine.update(values)
        engine_line = n
    try:
        scenario = Scenario(EngineConfig.build(**engine))
    except EngineConfigError as error:
        raise ScenarioError(f"{name}:{engine_line}: {error}") from None
    seen: set[str] = set()
    for n, row in others:
        try:
            if "control" in row:
                scenario.controls.append(_control(row))
            else:
                scenario.requests.append(_request(row, scenario.config, float(step_s), seen))
        except (ScenarioError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise ScenarioError(f"{name}:{n}: {reason}") from None
    scenario.requests.sort(key=lambda r: r.arrival_step)
    return scenario


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = gzip.open if path.name.endswith(".gz") else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for n, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ScenarioError(f"{path}:{n}: not JSON: {error}") from None
                if not isinstance(row, dict):
                    raise ScenarioError(f"{path}:{n}: a line must be a JSON object, got {line.strip()!r:.60}")
                yield n, row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ScenarioError(f"{path}: cannot be read: {reason}") from None


_REQUEST_FIELDS = frozenset(
    [
        "id",
        "arrival_step",
        "arrival_s",
        "prompt",
        "prompt_token_ids",
        "max_tokens",
        "priority",
        "cache_salt",
        "lora",
        "eos_at",
        "ignore_eos",
        "stop_token_ids",
        "abort_at_step",
        "abort_during_step",
        "output_token_ids",
        "report_mode",
    ]
)


def _whole(row: dict[str, Any], name: str, low: int | None = 0, default: int | None = None) -> int:
    value = row[name] if default is None else row.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
        least = "" if low is None else f" of at least {low}"
        raise ScenarioError(f"{name} must be a whole number{least}, got {value!r:.60}")
    return value


def _optional(row: dict[str, Any], name: str) -> int | None:
    return None if row.get(name) is None else _whole(row, name)


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ScenarioError(f"{name} must be a non-empty string, got {value!r:.60}")
    return value


def _tokens(value: object, name: str) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(t, int) and 0 <= t < 1 << 32 for t in value):
        raise ScenarioError(f"{name} must be a list of token ids (0 to 2^32-1)")
    return value


_CONTROLS = {"reset_prefix_cache": {"reset_running_requests"}, "pause": {"level"}, "resume": set[str]()}


def _control(row: dict[str, Any]) -> Control:
    kind, args = row["control"], row.get("args") or {}
    if kind not in _CONTROLS:
        raise ScenarioError(f"unknown control {kind!r}; known: {', '.join(_CONTROLS)}")
    if not isinstance(args, dict) or set(args) - _CONTROLS[kind]:
        raise ScenarioError(f"{kind} takes {', '.join(_CONTROLS[kind]) or 'no arguments'}, got {args!r:.80}")
    level = args.get("level")
    if kind == "pause" and level not in ("new", "all"):
        raise ScenarioError(f"level must be new or all, got {level!r:.60}")
    return Control(_whole(row, "step"), kind, bool(args.get("reset_running_requests")), level)


def _request(row: dict[str, Any], config: EngineConfig, step_s: float, seen: set[str]) -> ScriptedRequest:
    unknown = sorted(set(row) - _REQUEST_FIELDS)
    if unknown:
        raise ScenarioError(f"unknown request field {unknown[0]!r}; known: {', '.join(sorted(_REQUEST_FIELDS))}")
    rid = row["id"]
    if not isinstance(rid, str) or not rid or rid in seen:
        raise ScenarioError(f"id must be a new, non-empty string, got {rid!r:.60}")
    seen.add(rid)
    if "arrival_step" in row:
        arrival = _whole(row, "arrival_step")
    else:
        arrival = -(-round(float(row.get("arrival_s", 0)) * 1e6) // round(step_s * 1e6))
    lora = _text(row, "lora")
    request = Request(
        request_id=rid,
        prompt_token_ids=_prompt(row, config.vocab_size),
        max_tokens=_whole(row, "max_tokens", 1),
        priority=_whole(row, "priority", None, 0),
        cache_salt=_text(row, "cache_salt"),
        lora=LoraRef(lora, 1 + zlib.crc32(lora.encode()) % 100000, "adapters/" + lora) if lora else None,
        ignore_eos=bool(row.get("ignore_eos")),
        stop_token_ids=tuple(_tokens(row.get("stop_token_ids") or [], "stop_token_ids")),
        report_full=row.get("report_mode") == "full",
    )
    given = row.get("output_token_ids")
    return ScriptedRequest(
        request,
        arrival,
        eos_at=_optional(row, "eos_at"),
        output_token_ids=None if given is None else _tokens(given, "output_token_ids"),
        abort_at_step=_optional(row, "abort_at_step"),
        abort_during_step=_optional(row, "abort_during_step"),
    )


def _prompt(row: dict[str, Any], vocab_size: int) -> list[int]:
    if "prompt_token_ids" in row:
        return _tokens(row["prompt_token_ids"], "prompt_token_ids")
    parts = row["prompt"]
    if not isinstance(parts, list) or not all(isinstance(p, dict) for p in parts):
        raise ScenarioError(f"prompt must be a list of parts {{prefix_id, n, from?}}, got {parts!r:.60}")
    out: list[int] = []
    for part in parts:
        stream, first, n = _whole(part, "prefix_id"), _whole(part, "from", 0, 0), _whole(part, "n")
        out += [token(stream, i, vocab_size) for i in range(first, first + n)]
    return out
