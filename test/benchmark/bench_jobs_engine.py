"""Jobs that measure the wire format and the mock engine."""

from collections.abc import Callable
from pathlib import Path

from bench_payloads import BLOCK_SIZE, stored_payloads
from bench_registry import Work, job

FIDELITY_DATA = Path(__file__).resolve().parent.parent / "fidelity" / "data"
TRACE = Path(__file__).resolve().parents[2] / "examples/traces/mooncake_conversation.jsonl"


@job("events_decode_32", "s/block")
def decode() -> Callable[[], Work]:
    from kvsync_events import decode_batch

    payloads = stored_payloads(12_800, 32)

    def work() -> int:
        for payload in payloads:
            decode_batch(payload)
        return 12_800

    return lambda: work


@job("events_hash_sha256_cbor", "s/block")
def hash_blocks() -> Callable[[], Work]:
    from kvsync_events import BlockHasher

    hasher = BlockHasher("sha256_cbor", "0")
    tokens = [65_536 + i for i in range(BLOCK_SIZE)]

    def work() -> int:
        parent = hasher.none_hash
        for _ in range(20_000):
            parent = hasher.hash_block(parent, tokens)
        return 20_000

    return lambda: work


@job("engine_steps", "s/step")
def engine_steps() -> Callable[[], Work]:
    """Play a stored fidelity schedule, 300 requests of the conversation trace, through the mock engine."""
    from kvsync_mockpod.scenario import load_scenario
    from kvsync_mockpod.steps import play

    scenario = load_scenario(FIDELITY_DATA / "13_mooncake300.jsonl.gz")

    def repeat() -> Work:
        return lambda: sum(1 for _ in play(scenario))

    return repeat


@job("engine_tiers_completion", "s/completion")
def tiers() -> Callable[[], Work]:
    """Complete transfers on a shared link with 1,000 in flight; each completion costs O(log N)."""
    import random

    from bench_tier_link import LARGEST, Busy

    rng = random.Random(1)
    busy = Busy(1000, lambda: rng.randrange(1, LARGEST))

    def work() -> int:
        busy.complete(10_000)
        return 10_000

    return lambda: work


@job("offline_replay", "s/request")
def offline_replay() -> Callable[[], Work]:
    """Replay the first requests of the conversation trace on one worker in virtual time."""
    from kvsync_mockpod.offline import ReplayConfig, RoundRobinRouter, replay

    try:
        from kvsync_workload.trace import read_trace
    except ImportError:  # the base of a comparison may be older than this package
        from kvsync_mockpod.offline import read_trace

        requests = read_trace(TRACE, limit=120)
    else:
        requests = read_trace(TRACE, limit=120).requests

    def work() -> int:
        replay(requests, ReplayConfig(workers=1), RoundRobinRouter())
        return len(requests)

    return lambda: work
