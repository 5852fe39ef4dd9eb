# ruff: noqa: E402, C901 - vLLM reads its environment variables when imported; one function is one schedule
"""Runs vLLM's engine core on explicit schedules, on the CPU and without weights, inside an environment that has vLLM.

It reads one JSON line per schedule (`{"engine": {...}, "requests": [...], "controls": [...]}`, with prompts and outputs
as token ids) and writes one JSON line (`{"vllm": version, "log": [step records]}` or `{"error": ...}`), until the input
ends. vLLM's scheduler, block pool, request queue, hashing and configuration run unmodified. The driver supplies the
executor (tokens from the script), an object in place of the event publisher, and observers around three scheduler
methods. One process plays any number of schedules, each with an engine core of its own, because importing vLLM takes
long.
"""

import collections
import gc
import json
import os
import sys
import tempfile
import traceback
import zlib
from array import array
from concurrent.futures import Future
from pathlib import Path

for _name, _value in {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_PLUGINS": "",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES": "1",
}.items():
    os.environ.setdefault(_name, _value)

import torch
import vllm
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    KVEventsConfig,
    LoRAConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.lora.request import LoRARequest
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, ModelRunnerOutput
from vllm.v1.request import Request

HEAD_SIZE = 16
PAUSE = {None: PauseState.UNPAUSED, "new": PauseState.PAUSED_NEW, "all": PauseState.PAUSED_ALL}


def done(value):
    future = Future()
    future.set_result(value)
    return future


def make_executor(engine, script):
    """An Executor class without workers, which returns the token that the script has for a position."""
    spec = FullAttentionSpec(block_size=engine["block_size"], num_kv_heads=1, head_size=HEAD_SIZE, dtype=torch.float16)

    class Scripted(Executor):
        scheduler = None

        def _init_executor(self):
            self.sampled = None

        def collective_rpc(self, method, timeout=None, args=(), kwargs=None, non_block=False, **_more):
            known = {
                "get_kv_cache_spec": [{"model.layers.0.self_attn.attn": spec}],
                "get_supported_kv_cache_layouts": [["NHD", "HND"]],
                "determine_available_memory": [engine["num_gpu_blocks"] * spec.page_size_bytes],
            }
            return known.get(method, [None])

        def determine_available_memory(self):
            return self.collective_rpc("determine_available_memory")

        def get_kv_cache_specs(self):
            return self.collective_rpc("get_kv_cache_spec")

        def get_supported_kv_cache_layouts(self):
            return self.collective_rpc("get_supported_kv_cache_layouts")

        def set_kv_cache_layout(self, *_args, **_kw):
            pass

        def initialize_from_config(self, kv_cache_configs):
            pass

        def compile_or_warm_up_model(self, *_args, **_kw):
            pass

        def check_health(self):
            pass

        def shutdown(self):
            pass

        @classmethod
        def supports_async_scheduling(cls):
            return True

        @property
        def max_concurrent_batches(self):
            return 2 if engine["async_scheduling"] else 1

        def execute_model(self, scheduler_output, non_block=False):
            ids = list(scheduler_output.num_scheduled_tokens)
            if ids:
                tokens = []
                for rid in ids:
                    request = self.scheduler.requests[rid]
                    partial = getattr(request, "is_prefill_chunk", None)
                    if partial is None:
                        partial = request.num_computed_tokens < request.num_tokens
                    index = request.num_computed_tokens - request.num_prompt_tokens
                    tokens.append([] if partial else [script[rid][index]])
                self.sampled = ModelRunnerOutput(
                    req_ids=ids, req_id_to_index={r: i for i, r in enumerate(ids)}, sampled_token_ids=tokens
                )
            else:
                self.sampled = EMPTY_MODEL_RUNNER_OUTPUT
            if not non_block:
                return self.sampled
            return done(self.sampled if not ids or not engine["async_scheduling"] else None)

        def sample_tokens(self, grammar_output, non_block=False):
            sampled, self.sampled = self.sampled, None
            return done(sampled) if non_block else sampled

    return Scripted


def fitting(cls, **values):
    """An instance created from those values that the class of this version knows."""
    known = getattr(cls, "__dataclass_fields__", {})
    return cls(**{k: v for k, v in values.items() if k in known})


def build_core(engine, script, folder):
    model = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HEAD_SIZE,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "num_hidden_layers": 1,
        "intermediate_size": 32,
        "vocab_size": engine["vocab_size"],
        "torch_dtype": "float16",
        "max_position_embeddings": max(engine["max_model_len"], 64),
        "bos_token_id": 1,
        "eos_token_id": engine["eos_token_id"],
    }
    Path(folder, "config.json").write_text(json.dumps(model))
    executor = make_executor(engine, script)
    loras = {}
    if engine["max_loras"]:
        slots = engine["max_loras"]
        loras["lora_config"] = LoRAConfig(max_lora_rank=8, max_loras=slots, max_cpu_loras=slots)
    config = VllmConfig(
        model_config=ModelConfig(
            model=folder, skip_tokenizer_init=True, dtype="float16", seed=0, max_model_len=engine["max_model_len"]
        ),
        scheduler_config=fitting(
            SchedulerConfig,
            is_encoder_decoder=False,
            **{
                name: engine[name]
                for name in (
                    "max_num_seqs",
                    "max_num_batched_tokens",
                    "max_model_len",
                    "enable_chunked_prefill",
                    "policy",
                    "async_scheduling",
                    "scheduler_reserve_full_isl",
                    "watermark",
                    "long_prefill_token_threshold",
                )
            },
        ),
        cache_config=fitting(
            CacheConfig,
            block_size=engine["block_size"],
            gpu_memory_utilization=0.9,
            cache_dtype="auto",
            enable_prefix_caching=engine["enable_prefix_caching"],
            prefix_caching_hash_algo=engine["hash_algo"],
            num_gpu_blocks_override=engine["num_gpu_blocks"],
        ),
        parallel_config=ParallelConfig(distributed_executor_backend=executor),
        device_config=DeviceConfig(device="cpu"),
        kv_events_config=KVEventsConfig(enable_kv_cache_events=True, publisher="null"),
        **loras,
    )
    core = EngineCore(config, executor, log_stats=False)
    core.model_executor.scheduler = core.scheduler
    return core


class Publisher:
    """Receives exactly the batches that would be sent."""

    def __init__(self):
        self.events = []

    def publish(self, batch):
        self.events += batch.events

    def shutdown(self):
        pass


class Observer:
    """Observes the scheduler; each wrapped method is called unchanged."""

    def __init__(self, scheduler):
        self.s = scheduler
        self.known = set()
        self.forget()
        self.aborted = []
        self.preempted = []
        schedule, preempt, finish = scheduler.schedule, scheduler._preempt_request, scheduler.finish_requests

        def observed_schedule(*args, **kw):
            before = {r.request_id for r in scheduler.running}
            self.output = schedule(*args, **kw)
            for rid, n in self.output.num_scheduled_tokens.items():
                if rid not in before:
                    self.admitted[rid] = scheduler.requests[rid].num_computed_tokens - n
            return self.output

        def observed_preempt(request, *args, **kw):
            self.preempted.append(request.request_id)
            return preempt(request, *args, **kw)

        def observed_finish(ids, status):
            for rid in [ids] if isinstance(ids, str) else list(ids or scheduler.requests):
                request = scheduler.requests.get(rid)
                if status.name == "FINISHED_ABORTED" and request is not None and not request.is_finished():
                    self.aborted.append([rid, "abort"])
            return finish(ids, status)

        scheduler.schedule = observed_schedule
        scheduler._preempt_request = observed_preempt
        scheduler.finish_requests = observed_finish

    def forget(self):
        self.output, self.admitted = None, {}

    def record(self, step, outputs, events):
        scheduled = self.output.num_scheduled_tokens if self.output else {}
        finished = self.aborted + [
            [o.request_id, str(o.finish_reason)]
            for group in (outputs or {}).values()
            for o in group.outputs
            if o.finish_reason is not None
        ]
        record = {
            "step": step,
            "scheduled": [[rid, n] for rid, n in scheduled.items()],
            "hits": {r: h for r, h in self.admitted.items() if r not in self.known},
            "resumed": {r: h for r, h in self.admitted.items() if r in self.known},
            "preempted": self.preempted,
            "finished": finished,
            "events": [event_record(e) for e in events],
            "free": self.s.kv_cache_manager.block_pool.get_num_free_blocks(),
        }
        self.known.update(self.admitted)
        self.aborted, self.preempted = [], []
        return record


def event_record(event):
    kind = type(event).__name__
    if kind == "BlockRemoved":
        return {"type": kind, "block_hashes": list(event.block_hashes)}
    if kind != "BlockStored":
        return {"type": kind}
    ids = array("I", event.token_ids)
    if sys.byteorder == "big":
        ids.byteswap()
    out = {
        "type": kind,
        "block_hashes": list(event.block_hashes),
        "parent_block_hash": event.parent_block_hash,
        "block_size": event.block_size,
        "n_tokens": len(ids),
        "tokens_crc": zlib.crc32(ids.tobytes()),
    }
    keys = getattr(event, "extra_keys", None)
    if keys and any(k is not None for k in keys):
        out["extra_keys"] = [None if k is None else list(k) for k in keys]
    if event.lora_id is not None:
        out["lora_id"], out["lora_name"] = event.lora_id, getattr(event, "lora_name", None)
    return out


def make_request(core, row, engine, index):
    extra = {"kv_cache_report_mode": "full"} if row.get("report_full") else None
    sampling = SamplingParams(
        max_tokens=row["max_tokens"],
        ignore_eos=row["ignore_eos"],
        stop_token_ids=row["stop_token_ids"] or None,
        temperature=0.0,
        extra_args=extra,
    )
    eos = None if row["ignore_eos"] else engine["eos_token_id"]
    if eos is not None:
        try:
            sampling.update_from_generation_config({}, eos)
        except TypeError:
            sampling.update_from_generation_config({}, eos_token_id=eos)
    lora = row.get("lora")
    values = {
        "request_id": row["id"],
        "prompt_token_ids": row["prompt_token_ids"],
        "sampling_params": sampling,
        "pooling_params": None,
        "arrival_time": row["arrival_step"] + index * 1e-6,
        "lora_request": LoRARequest(lora_name=lora[0], lora_int_id=lora[1], lora_path=lora[2]) if lora else None,
        "cache_salt": row.get("cache_salt"),
        "priority": row["priority"],
        "block_hasher": core.request_block_hasher,
    }
    try:
        return Request(**values)
    except TypeError:  # older versions take EOS here
        return Request(**values, eos_token_id=eos)


def run(engine, requests, controls, max_steps=100_000):
    script = {row["id"]: row["outputs"] for row in requests}
    with tempfile.TemporaryDirectory() as folder:
        core = build_core(engine, script, folder)
        try:
            return list(play(core, engine, requests, controls, max_steps))
        finally:
            core.shutdown()


def play(core, engine, requests, controls, max_steps):
    scheduler = core.scheduler
    publisher = scheduler.kv_event_publisher = Publisher()
    observer = Observer(scheduler)
    arrivals = collections.deque(enumerate(requests))
    aborts, during, controlled = (collections.defaultdict(list) for _ in range(3))
    for row in requests:
        if row.get("abort_at_step") is not None:
            aborts[row["abort_at_step"]].append(row["id"])
        if row.get("abort_during_step") is not None:
            during[row["abort_during_step"]].append(row["id"])
    for control in controls:
        controlled[control["step"]].append(control)
    step = 0
    while step < max_steps:
        refused = []
        while arrivals and arrivals[0][1]["arrival_step"] <= step:
            index, row = arrivals.popleft()
            # vLLM's front end refuses these before they reach the engine core.
            if not 0 < len(row["prompt_token_ids"]) < engine["max_model_len"]:
                refused.append(row["id"])
            else:
                core.add_request(make_request(core, row, engine, index))
        for rid in aborts.pop(step, ()):
            core.abort_requests([rid])
        for control in controlled.pop(step, ()):
            if control["kind"] == "reset_prefix_cache":
                scheduler.reset_prefix_cache(reset_running_requests=control["reset_running_requests"])
            else:
                scheduler.set_pause_state(PAUSE[control["level"]])
        for rid in during.pop(step, ()):
            core.aborts_queue.put([rid])
        if scheduler.has_requests() or getattr(core, "batch_queue", None):
            observer.forget()
            outputs, _executed = core.step_fn()
            record = observer.record(step, outputs, publisher.events)
            publisher.events = []
            if refused:
                record["refused"] = refused
            yield record
            step += 1
            continue
        if refused:
            yield {"step": step, "refused": refused}
        ahead = [arrivals[0][1]["arrival_step"]] if arrivals else []
        ahead += [*aborts, *during, *controlled]
        if not ahead:
            return
        step = max(step + 1, min(ahead))
    raise RuntimeError(f"not finished after {max_steps} steps")


def quiet_collector():
    """Disable vLLM's calls of the garbage collector; returns the function that collects.

    An engine core collects four times in its life, each time over all objects that importing vLLM left behind, which
    takes nine tenths of the time of a small schedule. These objects are frozen once instead, and the garbage of each
    schedule is collected after it.
    """
    collect = gc.collect
    collect()
    gc.freeze()
    gc.collect = lambda _generation=2: 0
    gc.freeze = gc.unfreeze = lambda: None
    return collect


def main():
    collect = quiet_collector()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # vLLM's own output must not mix with the answers
    for line in sys.stdin:
        try:
            job = json.loads(line)
            answer = {"vllm": vllm.__version__, "log": run(job["engine"], job["requests"], job["controls"])}
        except Exception:  # noqa: BLE001 - the other side reports it
            answer = {"vllm": vllm.__version__, "error": traceback.format_exc(limit=8)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        collect()


if __name__ == "__main__":
    main()
