"""Measures what a router adds to a request: kvsync's and, where they are installed, those of other projects.

    python bench_router.py [--rate 200] [--seconds 5] [--rounds 3] [--peers FOLDER ...]

Two mock engines with latency `none` serve completions of one token for prompts of 512 token ids; half of the requests
repeat a prompt. One client sends them at a fixed rate, straight to an engine and through each router, round by round.
Prints JSON: the median over the rounds of the p50 and p99 in milliseconds, and of the CPU time of the router's process
per request in microseconds. The process of kvsync's router is also the index, which applies the engines' events, as
`vllm-router` does with the policy `kv_aware`. `--peers` names folders of virtual environments with `vllm-router` or
`sglang-router`; their routers are started if their commands are there.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import MODEL, HttpPort, Index, MockEngine, stopping
from kvsync_workload.percentiles import percentile

TOKENS, PROMPTS, CONNECTIONS = 512, 64, 64
STOP_S = 10.0


@dataclass
class Subject:
    """Something to which requests are sent, and its figures, one per round."""

    name: str
    url: str
    process: psutil.Process | None = None
    text: bool = False
    """It takes no token ids, and is sent as many words instead."""
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)

    def cpu_s(self) -> float:
        """CPU time of the process and its children so far."""
        if self.process is None:
            return 0.0
        everyone = [self.process, *self.process.children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in everyone)


class Client:
    """Keep-alive connections, each with one request at a time. It reads answers with a length and chunked ones."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._host, self._port = host, int(port)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, body: bytes) -> None:
        """One completion."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(self._host, self._port)
        head = f"POST /v1/completions HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in answer.split(b"\r\n", 1)[0]:
            raise AssertionError(answer)
        if b"content-length:" in answer:
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
        else:
            await reader.readuntil(b"0\r\n\r\n")
        self._idle.append((reader, writer))

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


def bodies(rng: random.Random, number: int, *, text: bool) -> list[bytes]:
    """Bodies of requests, of which half repeat an earlier prompt."""
    prompts = [[rng.randrange(1, 100_000) for _ in range(TOKENS)] for _ in range(PROMPTS)]
    chosen = [rng.choice(prompts) if at % 2 else [rng.randrange(1, 100_000)] * TOKENS for at in range(number)]
    given = [" ".join(map(str, prompt)) if text else prompt for prompt in chosen]
    return [json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": 1}).encode() for prompt in given]


async def measure(subject: Subject, rate: float, sent: Sequence[bytes]) -> None:
    """Send one round at a fixed rate, whatever the answers take."""
    client, latencies = Client(subject.url), []
    await asyncio.gather(*(client.ask(sent[0]) for _ in range(8)))  # connections and caches are warm

    async def one(body: bytes) -> None:
        began = time.perf_counter()
        await client.ask(body)
        latencies.append((time.perf_counter() - began) * 1000)

    before, began = subject.cpu_s(), time.perf_counter()
    asking = []
    for at, body in enumerate(sent):
        await asyncio.sleep(max(began + at / rate - time.perf_counter(), 0))
        asking.append(asyncio.create_task(one(body)))
    await asyncio.gather(*asking)
    subject.cpu_us.append((subject.cpu_s() - before) / len(sent) * 1e6)
    latencies.sort()
    subject.p50_ms.append(percentile(latencies, 50))
    subject.p99_ms.append(percentile(latencies, 99))
    client.close()


@contextlib.contextmanager
def peer(name: str, command: Sequence[object], port: int) -> Iterator[Subject]:
    """A router of another project."""
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tempfile.gettempdir()
    )
    try:
        HttpPort(port).ready("/health")
        text = name.startswith("sglang-router")
        yield Subject(name, f"http://127.0.0.1:{port}", psutil.Process(process.pid), text)
    finally:
        process.terminate()
        process.wait(STOP_S)


def peer_commands(folders: Sequence[Path], engines: Sequence[MockEngine]) -> Iterator[tuple[str, list[object], int]]:
    """Name, command and port of each router that is installed in one of the environments."""
    urls = [engine.url for engine in engines]
    for folder in folders:
        for program, policy in (
            ("vllm-router", "kv_aware"),
            ("vllm-router", "round_robin"),
            ("sglang-router", "cache_aware"),
            ("sglang-router", "round_robin"),
        ):
            path = folder / "bin" / program
            if not path.exists():
                continue
            port, prometheus = free_ports(2)
            command: list[object] = [path, *(["launch"] if program == "sglang-router" else [])]
            command += ["--host", "127.0.0.1", "--port", port, "--prometheus-port", prometheus]
            command += ["--worker-urls", *urls, "--policy", policy]
            if policy == "kv_aware":
                command += ["--kv-event-block-size", 16, "--kv-event-model", MODEL]
                for engine in engines:
                    command += ["--kv-event-source", f"{engine.url}=tcp://127.0.0.1:{engine.events}"]
            yield f"{program} {policy}", command, port


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    engines = [MockEngine(block_size=16, num_gpu_blocks_override=16_384) for _ in range(2)]
    rng = random.Random(1)
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        stack.enter_context(stopping(*engines))
        for engine in engines:
            engine.ready("/health")
        (port,) = free_ports(1)
        index = Index(*engines, folder=Path(folder), router_port=port)
        stack.enter_context(stopping(index))
        index.live()
        HttpPort(port).ready("/readyz")
        kvsync = Subject("kvsync kv, index in process", f"http://127.0.0.1:{port}", psutil.Process(index.process.pid))
        subjects = [Subject("straight to an engine", engines[0].url), kvsync]
        subjects += [stack.enter_context(peer(*each)) for each in peer_commands(options.peers, engines)]
        number = int(options.rate * options.seconds)
        for _ in range(options.rounds):
            for subject in subjects:
                asyncio.run(measure(subject, options.rate, bodies(rng, number, text=subject.text)))
    print(json.dumps({each.name: _medians(each) for each in subjects}, indent=2))


def _medians(subject: Subject) -> dict[str, float]:
    figures = {"p50_ms": subject.p50_ms, "p99_ms": subject.p99_ms, "cpu_us": subject.cpu_us}
    return {name: round(statistics.median(values), 3) for name, values in figures.items()}


if __name__ == "__main__":
    main()
