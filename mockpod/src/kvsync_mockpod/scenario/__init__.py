"""Scripted schedules: the scenario format shared with the vLLM driver of `test/fidelity`, and its executor.

A scenario is a file of JSON lines: one engine line, controls and requests. Prompts and outputs are generated from small
numbers by a 64-bit mixing function that both sides implement, so a file of a few hundred bytes describes schedules of
thousands of tokens.
"""

from kvsync_mockpod.scenario.executor import ScriptedExecutor
from kvsync_mockpod.scenario.model import Control, Scenario, ScriptedRequest
from kvsync_mockpod.scenario.parse import load_scenario, parse_scenario

__all__ = ["Control", "Scenario", "ScriptedExecutor", "ScriptedRequest", "load_scenario", "parse_scenario"]
