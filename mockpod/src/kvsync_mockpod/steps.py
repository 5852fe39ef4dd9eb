"""The `kvsync steps` command's core: runs the engine on a scripted schedule and logs every step that did something.

The log has the same form as that of the vLLM driver, so that the two can be compared line by line (`test/fidelity`).
"""

import json
import sys
import zlib
from array import array
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from kvsync_events import BlockRemoved, BlockStored, event_hash
from kvsync_mockpod.engine import Engine, Event, PromptEmptyError, PromptTooLongError, StepResult
from kvsync_mockpod.scenario import Control, Scenario, ScriptedExecutor, ScriptedRequest, load_scenario


def run_steps(scenario: str | Path | Scenario, out: IO[str]) -> int:
    """Play a scenario and write its step log; returns the number of lines.

    Raises:
        ScenarioError: the scenario cannot be played; the message is one line that names file and line.
    """
    loaded = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    lines = 0
    for record in play(loaded):
        out.write(json.dumps(record, separators=(",", ":")) + "\n")
        lines += 1
    return lines


def play(scenario: Scenario) -> Iterator[dict[str, Any]]:
    """The step log of a scenario, one record per step.

    When the engine is idle, the step number jumps to the next input.
    """
    engine = Engine(scenario.config, ScriptedExecutor(scenario), random_bytes=_no_randomness)
    plan = _Plan(scenario)
    step = 0
    while True:
        record: dict[str, Any] = {"step": step}
        refused = plan.feed(engine, step, record)
        if engine.has_work():
            yield _record(record, refused, engine.step())
            step += 1
            continue
        if refused:
            yield record | {"refused": refused}
        ahead = plan.next_step()
        if ahead is None:
            return
        step = max(step + 1, ahead)


class _Plan:
    """The inputs of a scenario by step."""

    def __init__(self, scenario: Scenario) -> None:
        self._arrivals: deque[ScriptedRequest] = deque(scenario.requests)
        self._aborts: dict[int, list[str]] = defaultdict(list)
        self._aborts_during: dict[int, list[str]] = defaultdict(list)
        self._controls: dict[int, list[Control]] = defaultdict(list)
        self._index = 0
        for r in scenario.requests:
            if r.abort_at_step is not None:
                self._aborts[r.abort_at_step].append(r.request.request_id)
            if r.abort_during_step is not None:
                self._aborts_during[r.abort_during_step].append(r.request.request_id)
        for control in scenario.controls:
            self._controls[control.step].append(control)

    def feed(self, engine: Engine, step: int, record: dict[str, Any]) -> list[str]:
        """Apply the arrivals, aborts and controls of a step, and record the refused requests."""
        refused = []
        while self._arrivals and self._arrivals[0].arrival_step <= step:
            scripted = self._arrivals.popleft()
            request = scripted.request
            request.arrival_s = scripted.arrival_step + self._index * 1e-6
            self._index += 1
            try:
                engine.add_request(request)
            except (PromptEmptyError, PromptTooLongError):
                refused.append(request.request_id)
        for rid in self._aborts.pop(step, ()):
            engine.abort(rid)
        for control in self._controls.pop(step, ()):
            record["control"] = control.kind
            if control.kind == "reset_prefix_cache":
                running = control.reset_running_requests
                record["control_result"] = engine.reset_prefix_cache(reset_running_requests=running)
            else:
                engine.pause(control.level)
        for rid in self._aborts_during.pop(step, ()):
            engine.abort(rid, during_step=True)
        return refused

    def next_step(self) -> int | None:
        """The earliest step that still has an input."""
        ahead = [self._arrivals[0].arrival_step] if self._arrivals else []
        for table in (self._aborts, self._aborts_during, self._controls):
            ahead += table
        return min(ahead, default=None)


def _no_randomness(count: int) -> bytes:
    """Zeros in place of random bytes, so that a scenario without a hash seed is deterministic too."""
    return bytes(count)


def _record(record: dict[str, Any], refused: list[str], result: StepResult) -> dict[str, Any]:
    record["scheduled"] = [list(pair) for pair in result.scheduled]
    record["hits"] = result.hits
    if result.resumed:
        record["resumed"] = result.resumed
    record["preempted"] = result.preempted
    record["finished"] = [list(pair) for pair in result.finished]
    if refused:
        record["refused"] = refused
    record["events"] = [_event(event) for event in result.events]
    record["free"] = result.free
    return record


def _number(block_hash: int | bytes) -> int:
    return event_hash(block_hash) if isinstance(block_hash, bytes) else block_hash


def _event(event: Event) -> dict[str, Any]:
    if isinstance(event, BlockStored):
        parent = event.parent_block_hash
        out: dict[str, Any] = {
            "type": "BlockStored",
            "block_hashes": [_number(h) for h in event.block_hashes],
            "parent_block_hash": None if parent is None else _number(parent),
            "block_size": event.block_size,
            "n_tokens": len(event.token_ids),
            "tokens_crc": _crc(event.token_ids),
        }
        if event.extra_keys and any(keys is not None for keys in event.extra_keys):
            out["extra_keys"] = [None if keys is None else list(keys) for keys in event.extra_keys]
        if event.lora_id is not None:
            out["lora_id"], out["lora_name"] = event.lora_id, event.lora_name
        return out
    if isinstance(event, BlockRemoved):
        return {"type": "BlockRemoved", "block_hashes": [_number(h) for h in event.block_hashes]}
    return {"type": "AllBlocksCleared"}


def _crc(token_ids: list[int]) -> int:
    """CRC-32 of the ids as little-endian 32-bit integers."""
    ids = array("I", token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    return zlib.crc32(ids.tobytes())
