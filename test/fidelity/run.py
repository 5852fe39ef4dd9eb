"""`make test-fidelity`: fresh random schedules through vLLM's own engine core and through the mock, step for step.

    run.py [--count 200] [--seed N] [--vllm 0.33.0] [--environment DIR] [--out out/fidelity]

Exit 0: all equal. 1: something differs; the first divergence is shrunk and written with both logs. 2: vLLM could not be
fetched or run. `--replay FILE` compares one schedule file instead.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from environment import EnvironmentFailedError, ensure_environment
from generate import generate
from shrink import shrink

from kvsync_mockpod.engine import EngineConfig
from kvsync_mockpod.scripted import ScenarioError, ScriptedExecutor, parse_scenario
from kvsync_mockpod.stepdiff import compare_logs
from kvsync_mockpod.steps import play

HERE = Path(__file__).parent
ENGINE_FIELDS = [name for name in EngineConfig.model_fields if name not in ("max_waiting", "step_retries")]


class VllmError(Exception):
    """vLLM did not answer, or refused the schedule."""


class Vllm:
    """The driver process: one schedule in, one log out."""

    def __init__(self, python, log_path):
        self._errors = Path(log_path).open("w")  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", str(HERE / "vllm_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        )

    def log(self, rows):
        """vLLM's step log of a schedule."""
        self._process.stdin.write(json.dumps(spell_out(rows)) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise VllmError(f"vLLM ended (exit code {self._process.poll()}); see {self._errors.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise VllmError(answer["error"].strip().splitlines()[-1])
        return answer["log"]

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._errors.close()


def spell_out(rows):
    """A schedule as the driver takes it: every prompt and output token by its id."""
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
    controls = [asdict(control) for control in scenario.controls]
    engine = {name: getattr(config, name) for name in ENGINE_FIELDS}
    return {"engine": engine, "requests": requests, "controls": controls}


def mock_log(rows, version):
    """The mock's step log of the same schedule."""
    rows = [r if "engine" not in r else {"engine": {"vllm_version": version, **r["engine"]}} for r in rows]
    return json.loads(json.dumps(list(play(parse_scenario(enumerate(rows, 1))))))


def divergence(vllm, rows, version):
    return compare_logs(vllm.log(rows), mock_log(rows, version))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def report(vllm, rows, first, version, out, name):
    """Shrink a diverging schedule, write it and both logs, and say what differs."""

    def diverges(candidate):
        try:
            return divergence(vllm, candidate, version) is not None
        except (VllmError, ScenarioError):
            return False

    print(f"{name} DIFFERS: {first}", flush=True)
    small = shrink(rows, diverges, first.step)
    write_rows(out / f"{name}.jsonl", small)
    write_rows(out / f"{name}.vllm.jsonl", vllm.log(small))
    write_rows(out / f"{name}.mock.jsonl", mock_log(small, version))
    print(f"shrunk to {sum('id' in row for row in small)} requests: {out / name}.jsonl")
    print(f"  {divergence(vllm, small, version)}")
    for row in small:
        print(f"  {json.dumps(row)}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="schedules to compare")
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: from the date)")
    parser.add_argument("--vllm", default="0.33.0", help="version to compare with")
    parser.add_argument("--environment", help="a virtual environment, or its Python, that has this version already")
    parser.add_argument("--out", default="out/fidelity", help="where a divergence is written")
    parser.add_argument("--replay", help="compare this schedule file only")
    return parser.parse_args()


def schedules(args):
    if args.replay:
        with Path(args.replay).open() as lines:
            yield Path(args.replay).stem, [json.loads(line) for line in lines if line.strip()]
        return
    first = args.seed if args.seed is not None else int(time.strftime("%Y%m%d", time.gmtime())) * 1000
    for seed in range(first, first + args.count):
        yield f"seed-{seed}", generate(seed)


def main():
    args = arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    began, steps, count = time.monotonic(), 0, 0
    try:
        vllm = Vllm(ensure_environment(args.vllm, args.environment), out / "vllm.log")
        try:
            for name, rows in schedules(args):
                expected = vllm.log(rows)
                first = compare_logs(expected, mock_log(rows, args.vllm))
                if first is not None:
                    report(vllm, rows, first, args.vllm, out, name)
                    return 1
                steps += len(expected)
                count += 1
                if count % 20 == 0:
                    print(f"{count} schedules, {steps} steps equal", flush=True)
        finally:
            vllm.close()
    except (EnvironmentFailedError, VllmError, ScenarioError, OSError) as error:
        print(f"test-fidelity: {error}", file=sys.stderr)
        return 2
    took = time.monotonic() - began
    print(f"equal to vLLM {args.vllm}: {count} schedules, {steps} steps ({took:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
