"""Jobs that measure the index core, and the path from a socket to a visible block."""

import ctypes
import gc
import os
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import bench_payloads
from bench_payloads import BLOCK_SIZE, make_chains, stored_payloads
from bench_registry import CORE, SCALE, Work, job


def fresh_core(*names: str):
    """Return an empty core of the kind under test, with publishers."""
    from kvsync_indexer.core import make_core

    core = make_core(CORE)
    for name in names or ("pod",):
        core.add_publisher(name, "model")
    return core


def ingest(blocks: int, per_event: int) -> Callable[[], Work]:
    payloads = stored_payloads(blocks // SCALE // per_event * per_event, per_event)

    def repeat() -> Work:
        apply = fresh_core().apply

        def work() -> int:
            for payload in payloads:
                apply("pod", payload)
            return len(payloads) * per_event

        return work

    return repeat


@job("index_ingest_1", "s/block")
def ingest_1() -> Callable[[], Work]:
    return ingest(20_000, 1)


@job("index_ingest_32", "s/block")
def ingest_32() -> Callable[[], Work]:
    return ingest(64_000, 32)


@job("index_ingest_512", "s/block")
def ingest_512() -> Callable[[], Work]:
    return ingest(102_400, 512)


@job("index_removal", "s/block")
def removal() -> Callable[[], Work]:
    chains = make_chains(20_480 // SCALE, 32)
    payloads = [bench_payloads.encode_stored(hashes, tokens) for hashes, tokens in chains]
    removals = [bench_payloads.encode_removed([block]) for hashes, _ in chains for block in hashes]

    def repeat() -> Work:
        core = fresh_core()
        for payload in payloads:
            core.apply("pod", payload)

        def work() -> int:
            for payload in removals:
                core.apply("pod", payload)
            return len(removals)

        return work

    return repeat


@job("index_churn", "s/block")
def churn() -> Callable[[], Work]:
    """Store and evict blocks in a full cache of 4,096 blocks."""
    chains = make_chains(16_384, 32)
    store = [bench_payloads.encode_stored(hashes, tokens) for hashes, tokens in chains]
    remove = [bench_payloads.encode_removed(hashes) for hashes, _ in chains]
    core = fresh_core()
    ring = [payload for at in range(len(store)) for payload in (store[at], remove[at - 128])]
    for payload in ring:
        core.apply("pod", payload)

    def work() -> int:
        for payload in ring:
            core.apply("pod", payload)
        return 2 * 16_384

    return lambda: work


def lookup(publishers: int, blocks: int, *, hit: bool = True, keys: bool = False) -> Callable[[], Work]:
    from kvsync_indexer.core import Context

    core = fresh_core(*(f"pod-{index}" for index in range(publishers)))
    ((hashes, given),) = make_chains(blocks, blocks)
    for index in range(publishers):
        core.apply(f"pod-{index}", bench_payloads.encode_stored(hashes, given))
    tokens = array("I", given if hit else [token + 1 for token in given])
    context, times = Context("model"), 1000 // SCALE // SCALE
    known = core.query_keys(context, tokens, BLOCK_SIZE) if keys else []
    call = (lambda: core.match_keys("model", BLOCK_SIZE, known)) if keys else (lambda: core.match(context, tokens))
    assert len(call()) == (publishers if hit else 0)

    def work() -> int:
        for _ in range(times):
            call()
        return times

    return lambda: work


@job("index_match_512_blocks_64_publishers", "s/query")
def match_64() -> Callable[[], Work]:
    return lookup(64, 512)


@job("index_match_keys_512_blocks_64_publishers", "s/query")
def match_keys_64() -> Callable[[], Work]:
    return lookup(64, 512, keys=True)


@job("index_match_512_blocks_1_publisher", "s/query")
def match_1() -> Callable[[], Work]:
    return lookup(1, 512)


@job("index_miss", "s/query")
def miss() -> Callable[[], Work]:
    return lookup(64, 512, hit=False)


def resident_bytes() -> int:
    """Return the resident memory of this process after unused heap has been returned to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(holders: int, publishers: int = 64, each: int = 3200) -> Callable[[], Work]:
    """Store blocks of `publishers`, each set of blocks held by `holders` of them. Measured once per process."""
    each //= SCALE
    names = [f"pod-{index}" for index in range(publishers)]
    sets = [stored_payloads(each, 32, seed) for seed in range(publishers // holders)]

    def repeat() -> Work:
        core = fresh_core(*names)
        core.apply(names[0], stored_payloads(32, 32, seed=10**6)[0])
        core.clear_publisher(names[0])
        keep.append(core)

        def work() -> int:
            for index, name in enumerate(names):
                core.apply_many(name, sets[index // holders])
            return each * publishers

        return work

    keep: list[object] = []
    return repeat


@job("index_memory_1_holder", "B/block")
def memory_1() -> Callable[[], Work]:
    return memory(1)


@job("index_memory_64_holders", "B/block")
def memory_64() -> Callable[[], Work]:
    return memory(64)


@job("service_zmq_32", "s/block")
def service_zmq() -> Callable[[], Work]:
    """Send batches of 32 blocks from a socket in this process until they are visible: sockets, state machine, core."""
    import zmq

    from kvsync_events import AllBlocksCleared, EventBatch, encode_batch, encode_seq
    from kvsync_indexer.ingest import Ingest, SocketSettings
    from kvsync_indexer.publishers import PublisherSpec

    payloads = stored_payloads(128_000 // SCALE, 32)
    cleared = encode_batch(EventBatch(0.0, [AllBlocksCleared()], 0), bench_payloads.FORM)
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    core = fresh_core("other")
    ingest = Ingest(core, sockets=SocketSettings(receive_hwm=0))
    ingest.start()
    ingest.add(PublisherSpec(name="pod", model="model", endpoint=f"tcp://127.0.0.1:{port}"))
    sent = 0

    def send(payload: bytes) -> None:
        nonlocal sent
        socket.send_multipart([b"", encode_seq(sent), payload])
        sent += 1

    def wait(batches: int) -> None:
        while (link := ingest.link("pod")) is None or link.totals.batches < batches:
            time.sleep(0.001)

    def connect() -> None:  # a message that is sent before the subscription arrives is lost
        while (link := ingest.link("pod")) is None or str(link.machine.state) != "live":
            time.sleep(0.001)
        send(payloads[0])
        deadline = time.monotonic() + 10
        while not ingest.link("pod").totals.batches and time.monotonic() < deadline:
            time.sleep(0.001)

    def repeat() -> Work:
        send(cleared)  # every repeat stores new blocks
        wait(sent - lost)

        def work() -> int:
            for payload in payloads:
                send(payload)
            wait(sent - lost)
            return len(payloads) * 32

        return work

    connect()
    lost = sent - ingest.link("pod").totals.batches
    return repeat
