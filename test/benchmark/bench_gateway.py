"""What the endpoint picker adds to a request through Envoy, beside the same Envoy with round robin.

    python test/benchmark/bench_gateway.py [--rate 200] [--block-s 4] [--blocks 8] [--out FILE.json]

Both gateways stand before the same two mock engines without latency. They are loaded in turn, in short blocks, so that
a change of the machine reaches both. Requests are sent at fixed times, whatever became of earlier ones. The figures are
medians over blocks. The last figure is the memory of a picker with 1,000 open streams.
"""

import argparse
import asyncio
import datetime as dt
import json
import statistics
import sys
import tempfile
from pathlib import Path

import aiohttp
import grpc
import psutil
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "gateway"))

from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingRequest
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub
from gateway_plant import STREAMED, Envoy, Plant

from kvsync_testkit.processes import MODEL

LENGTHS = (512, 8192)
PREFIXES = 32
"""Prompts in circulation; each block begins with as many that no cache has seen."""
OPEN_STREAMS = 1000
PICKER, ROUND_ROBIN = "picker", "round robin"


class PlainEnvoy(Envoy):
    """The same Envoy without the picker."""

    def configuration(self, example, picker_port, engine_ports, admin_port):
        config = super().configuration(example, picker_port, engine_ports, admin_port)
        manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        manager["http_filters"] = manager["http_filters"][1:]
        engines = config["static_resources"]["clusters"][0]
        engines["load_balancing_policy"] = engines["load_balancing_policy"]["policies"][0]["typed_extension_config"][
            "typed_config"
        ]["fallback_policy"]
        return config


async def block(session, url, bodies, rate, seconds):
    """Latencies in ms of requests at a fixed rate."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def one(number):
        await asyncio.sleep(begun + number / rate - loop.time())
        sent = loop.time()
        async with session.post(url, data=bodies[number % len(bodies)]) as response:
            await response.read()
            assert response.status == 200, response.status
        return (loop.time() - sent) * 1000

    return await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))


def bodies_of(length, block_number):
    """Requests of `length` token ids; their prompts differ between blocks."""
    first = (block_number + 1) * 1_000_000
    prompts = ([first + prefix * 10_000 + at for at in range(length)] for prefix in range(PREFIXES))
    return [json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": 1}).encode() for prompt in prompts]


def percentile(values, share):
    """The value below which `share` of the values lie."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


async def latencies(plant, plain, options):
    """Figures per length of prompt."""
    urls = {PICKER: plant.envoy.base_url, ROUND_ROBIN: plain.base_url}
    picker = psutil.Process(plant.picker.process.pid)
    figures = {}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        for length in LENGTHS:
            rows = {name: [] for name in urls}
            cpu = []
            for number in range(options.blocks):
                bodies = bodies_of(length, number)
                for name, url in urls.items():
                    before = sum(picker.cpu_times()[:2])
                    found = await block(session, f"{url}/v1/completions", bodies, options.rate, options.block_s)
                    rows[name].append((percentile(found, 0.5), percentile(found, 0.99)))
                    if name == PICKER:
                        cpu.append((sum(picker.cpu_times()[:2]) - before) / len(found) * 1e3)
            median = {name: [statistics.median(each) for each in zip(*of, strict=True)] for name, of in rows.items()}
            figures[f"{length} tokens"] = {
                "p50_ms": {name: round(values[0], 2) for name, values in median.items()},
                "p99_ms": {name: round(values[1], 2) for name, values in median.items()},
                "added_p50_ms": round(median[PICKER][0] - median[ROUND_ROBIN][0], 2),
                "added_p99_ms": round(median[PICKER][1] - median[ROUND_ROBIN][1], 2),
                "picker_cpu_ms_per_request": round(statistics.median(cpu), 2),
            }
    return figures


async def resident_mb(plant):
    """Resident memory of the picker with open streams, each of which has sent half of a body of 8 KB."""
    head, body = ProcessingRequest(), ProcessingRequest()
    head.request_headers.headers.headers.add(key=":path", raw_value=b"/v1/completions")
    body.request_body.body = b"x" * 4096
    credentials = grpc.ssl_channel_credentials(plant.certificate)
    options = [("grpc.ssl_target_name_override", "localhost")]
    async with grpc.aio.secure_channel(f"127.0.0.1:{plant.picker.grpc_port}", credentials, options=options) as channel:
        stub = ExternalProcessorStub(channel)
        streams = []
        for _ in range(OPEN_STREAMS):
            stream = stub.Process()
            await stream.write(head)
            await stream.write(body)
            streams.append(stream)
        await asyncio.sleep(1)
        resident = psutil.Process(plant.picker.process.pid).memory_info().rss / 1e6
        for stream in streams:
            stream.cancel()
    return round(resident, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--block-s", type=float, default=4)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from kvsync_router.picker.credentials import self_signed

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, certificate = self_signed(dt.datetime.now(dt.UTC))
        (folder / "tls.key").write_bytes(key)
        (folder / "tls.crt").write_bytes(certificate)
        plant = Plant(folder, STREAMED, "--cert-path", folder, engines=2, num_gpu_blocks_override=200_000)
        plant.certificate = certificate
        plain_folder = folder / "plain"
        plain_folder.mkdir()
        plain = PlainEnvoy(plain_folder, STREAMED, plant.picker.grpc_port, [one.port for one in plant.engines])
        try:
            plain.start()
            figures = asyncio.run(latencies(plant, plain, options))
            figures[f"{OPEN_STREAMS} open streams"] = {"picker_resident_mb": asyncio.run(resident_mb(plant))}
        finally:
            plain.stop()
            plant.stop()
    print(yaml.safe_dump(figures, sort_keys=False))
    if options.out is not None:
        options.out.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
