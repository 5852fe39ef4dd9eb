# ruff: noqa: E402 - vLLM reads its environment variables when imported
"""Plays random stores and frees on vLLM's own KV cache manager with hybrid groups, without an engine around it.

It runs inside of an environment that has vLLM. It reads one JSON line per history (`{"seed": 1}`), and writes one JSON
line: the groups, and per step the events that the manager published and how many tokens of each prompt it would hit
(`HybridKVCacheCoordinator.find_longest_cache_hit`).
"""

import json
import os
import random
import sys
import traceback
from math import gcd, lcm

for _name, _value in {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_PLUGINS": "",
    "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES": "1",
}.items():
    os.environ.setdefault(_name, _value)

import torch
import vllm
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    MambaSpec,
    SlidingWindowSpec,
)
from vllm.v1.request import Request

PROMPT_TOKENS = 128
LAYOUTS = [
    [("full", 4), ("window", 4, 9)],
    [("window", 4, 9), ("full", 4)],
    [("full", 8), ("mamba", 8)],
    [("full", 4), ("window", 4, 6), ("mamba", 4)],
    [("full", 16), ("window", 4, 6)],
    [("full", 4), ("window", 8, 12)],
    [("full", 16), ("window", 4, 8), ("window", 2, 4)],
    [("window", 4, 8), ("full", 8)],
]
FIELDS = [
    *("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name", "extra_keys"),
    *("group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window"),
]


def spec_of(kind, size, window=None):
    sizes = {"block_size": size, "num_kv_heads": 1, "head_size": 16, "dtype": torch.float16}
    if kind == "full":
        return FullAttentionSpec(**sizes)
    if kind == "window":
        return SlidingWindowSpec(**sizes, sliding_window=window)
    return MambaSpec(block_size=size, shapes=((2, 2),), dtypes=(torch.float32,), mamba_cache_mode="align")


class History:
    """One manager, and what it publishes."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.layout = self.rng.choice(LAYOUTS)
        sizes = [one[1] for one in self.layout]
        self.step, fine = lcm(*sizes), gcd(*sizes)
        groups = [KVCacheGroupSpec([f"layer{at}"], spec_of(*one)) for at, one in enumerate(self.layout)]
        blocks = self.rng.choice([60, 120, 400]) * len(groups)
        config = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=groups)
        self.manager = KVCacheManager(
            config,
            max_model_len=2 * PROMPT_TOKENS,
            scheduler_block_size=self.step,
            hash_block_size=fine,
            enable_kv_cache_events=True,
        )
        self.hasher = get_request_block_hasher(fine, sha256)
        bases = [[self.rng.randrange(1000) for _ in range(PROMPT_TOKENS)] for _ in range(3)]
        self.prompts = bases + [[*base[: 8 * self.rng.randrange(2, 12)], *bases[0]][:PROMPT_TOKENS] for base in bases]
        self.count = 0

    def request(self, tokens):
        self.count += 1
        params = SamplingParams(max_tokens=1)
        return Request(str(self.count), tokens, params, None, block_hasher=self.hasher)

    def run(self, tokens):
        request = self.request(tokens)
        self.manager.new_step_starts()
        computed, hit, *_ = self.manager.get_computed_blocks(request)
        done = hit
        while done < len(tokens):
            chunk = min(len(tokens) - done, self.step * self.rng.randrange(1, 5))
            first = (hit, computed) if done == hit else ()
            if self.manager.allocate_slots(request, chunk, *first) is None:
                break
            done += chunk
            request.num_computed_tokens = done
            self.manager.new_step_starts()
        self.manager.free(request)

    def hits(self):
        found = []
        for prompt in self.prompts:
            hashes = self.request(prompt).block_hashes
            found.append(self.manager.coordinator.find_longest_cache_hit(hashes, len(prompt))[1])
        return found

    def play(self, steps=40):
        rows = []
        for _ in range(steps):
            prompt = self.rng.choice(self.prompts)
            self.run(prompt[: self.rng.randrange(8, len(prompt) + 1)])
            events = [encoded(event) for event in self.manager.take_events()]
            rows.append({"events": events, "hits": self.hits()})
        return {"vllm": vllm.__version__, "layout": self.layout, "prompts": self.prompts, "steps": rows}


def encoded(event):
    fields = {"type": type(event).__name__}
    for name in FIELDS:
        if getattr(event, name, None) is not None:
            fields[name] = getattr(event, name)
    return fields


def main():
    init_none_hash(sha256)
    for line in sys.stdin:
        try:
            answer = History(json.loads(line)["seed"]).play()
        except Exception:  # noqa: BLE001 - whatever vLLM raises is the answer
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
