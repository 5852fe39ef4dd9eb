"""Keeps vLLM's engine core running in a process of its own while there are schedules to play."""

import json
import os
import subprocess
from collections import OrderedDict
from dataclasses import asdict
from pathlib import Path

from kvsync_mockpod.engine import EngineConfig
from kvsync_mockpod.scenario import ScriptedExecutor, parse_scenario

DRIVER = Path(__file__).with_name("vllm_driver.py")
ENGINE_FIELDS = [name for name in EngineConfig.model_fields if name not in ("max_waiting", "step_retries")]
REMEMBERED = 4096
"""Number of logs to keep; a shrinker asks for many schedules twice."""


class VllmError(Exception):
    """vLLM did not answer, or refused the schedule."""


class Vllm:
    """The driver process: takes a schedule and returns a step log. Answers are cached."""

    def __init__(self, python, log_path):
        self.asked = 0
        self._answers = OrderedDict()
        self._errors = Path(log_path).open("w")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(DRIVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )

    def log(self, rows):
        """vLLM's step log of a schedule. Raises VllmError."""
        job = json.dumps(spell_out(rows))
        if job not in self._answers:
            self._answers[job] = self._ask(job)
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        answer = self._answers[job]
        if "error" in answer:
            raise VllmError(answer["error"].strip().splitlines()[-1])
        return answer["log"]

    def _ask(self, job):
        self.asked += 1
        try:
            self._process.stdin.write(job + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise VllmError(f"vLLM ended (exit code {self._process.poll()}); see {self._errors.name}")
        return json.loads(line)

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._errors.close()


def spell_out(rows):
    """A schedule in the driver's form: every prompt and output token by its id."""
    scenario = parse_scenario(enumerate(rows, 1))
    executor, config = ScriptedExecutor(scenario), scenario.config
    requests = []
    for scripted in scenario.requests:
        r = scripted.request
        requests.append(
            {
                "id": r.request_id,
                "arrival_step": scripted.arrival_step,
                "prompt_token_ids": list(r.prompt_token_ids),
                "outputs": [executor.sample(r, i) for i in range(min(r.max_tokens, config.max_model_len))],
                "max_tokens": r.max_tokens,
                "priority": r.priority,
                "cache_salt": r.cache_salt,
                "lora": [r.lora.name, r.lora.id, r.lora.path] if r.lora else None,
                "ignore_eos": r.ignore_eos,
                "stop_token_ids": list(r.stop_token_ids),
                "report_full": r.report_full,
                "abort_at_step": scripted.abort_at_step,
                "abort_during_step": scripted.abort_during_step,
            }
        )
    engine = {name: getattr(config, name) for name in ENGINE_FIELDS}
    return {"engine": engine, "requests": requests, "controls": [asdict(control) for control in scenario.controls]}
