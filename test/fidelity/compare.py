"""Plays one schedule on both engines and finds the first step at which their logs differ."""

import json

from vllm_process import VllmError

from kvsync_mockpod.engine import RequestRefusedError
from kvsync_mockpod.errors import ScenarioError
from kvsync_mockpod.scenario import parse_scenario
from kvsync_mockpod.stepdiff import Divergence, compare_logs
from kvsync_mockpod.steps import play

MOST_STEPS = 20_000
"""A mock engine that is still busy after this many steps never ends; random schedules take less than a tenth of it."""


def mock_log(rows, version, until=None):
    """The mock's step log of a schedule. If the mock fails or does not end, the last record says so.

    With `until`, the log ends at the first record after this step that schedules anything. Raises ScenarioError if the
    mock refuses the schedule.
    """
    rows = [r if "engine" not in r else {"engine": {"vllm_version": version, **r["engine"]}} for r in rows]
    scenario = parse_scenario(enumerate(rows, 1))
    log = []
    try:
        for record in play(scenario):
            log.append(record)
            if until is not None and record["step"] > until and record.get("scheduled"):
                break
            if len(log) > MOST_STEPS:
                raise RuntimeError(f"still busy after {MOST_STEPS} steps")
    except RequestRefusedError as error:  # a schedule must not contain such a request
        raise ScenarioError(str(error)) from None
    except Exception as error:  # noqa: BLE001 - whatever breaks the engine is a divergence to be shrunk
        step = log[-1]["step"] + 1 if log else 0
        log.append({"step": step, "scheduled": [f"{type(error).__name__}: {error}"]})
    return json.loads(json.dumps(log))


class Comparison:
    """Compares the mock engine with one vLLM process on the same schedules."""

    def __init__(self, vllm, version):
        self.vllm = vllm
        self.version = version
        self.schedules = 0
        self.steps = 0

    def first_difference(self, rows) -> Divergence | None:
        """The first difference, or None if all steps are equal. Raises VllmError, ScenarioError."""
        expected = self.vllm.log(rows)
        self.schedules += 1
        self.steps += len(expected)
        until = expected[-1]["step"] if expected else 0  # a mock that schedules anything after that differs
        return compare_logs(expected, mock_log(rows, self.version, until))

    def differs_at(self, rows) -> int | None:
        """For the shrinker: the first step that differs, or None; also None for rows that are not a valid schedule."""
        try:
            difference = self.first_difference(rows)
        except (VllmError, ScenarioError):
            return None
        return None if difference is None else difference.step
