"""A gateway on loopback: mock engines, an index, a picker, and a real Envoy with the configurations of `examples/`."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import STOP_S, HttpPort, Index, MockEngine
from kvsync_testkit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "gateway"
STREAMED = "envoy.yaml"
FAIL_OPEN = "envoy-fail-open.yaml"
ORIGINAL_DST = "envoy-original-dst.yaml"
CONFIGURATIONS = (STREAMED, FAIL_OPEN, ORIGINAL_DST)
SLOW = '{"decode_us": 20000}'
"""A latency of engines at which an answer takes 20 ms per token."""
ENVOY_PORT, ADMIN_PORT, PICKER_PORT, ENGINE_PORTS = 10000, 9901, 9002, (8001, 8002)
"""The ports in the examples."""


def envoy_path() -> str:
    """The program, which `hack/envoy.sh` installs if it has to."""
    given = os.environ.get("KVSYNC_ENVOY")
    if given:
        return given
    return subprocess.run([ROOT / "hack" / "envoy.sh"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


class Daemon(HttpPort):
    """A process that can be killed and started again at its ports."""

    def __init__(self, name: str, command: list[str], status_port: int, status_path: str, folder: Path) -> None:
        super().__init__(status_port)
        self.name = name
        self._command = command
        self._path = status_path
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        self.ready(self._path)

    def _answers(self, path: str) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended\n{self.tail()}")
        return super()._answers(path)

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)


class Picker(Daemon):
    """`kvsync-epp`. Its HTTP port is that of its metrics."""

    def __init__(self, folder: Path, publishers: Path, *flags: object, index_url: str | None = None) -> None:
        self.grpc_port, self.health_port, metrics = free_ports(3)
        asks = [] if index_url is None else ["--index-url", index_url]
        command = [sys.executable, "-m", "kvsync_router.picker.main", "--host", "127.0.0.1", *asks]
        command += ["--publishers", str(publishers), "--grpc-port", str(self.grpc_port)]
        command += ["--grpc-health-port", str(self.health_port), "--metrics-port", str(metrics)]
        super().__init__("picker", [*command, *map(str, flags)], metrics, "/readyz", folder)


class Envoy(Daemon):
    """Envoy with a configuration of `examples/gateway` at other ports. Its HTTP port is that of its admin page."""

    def __init__(self, folder: Path, example: str, picker_port: int, engine_ports: list[int]) -> None:
        self.gateway_port, admin = free_ports(2)
        config = self.configuration(example, picker_port, engine_ports, admin)
        path = folder / example
        path.write_text(yaml.safe_dump(config))
        command = [envoy_path(), "-c", str(path), "-l", "warning", "--concurrency", "1", "--use-dynamic-base-id"]
        super().__init__(f"envoy-{Path(example).stem}", command, admin, "/ready", folder)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def configuration(self, example: str, picker_port: int, engine_ports: list[int], admin_port: int) -> Any:
        """The example with these ports in place of its own."""
        config = yaml.safe_load((EXAMPLES / example).read_text())
        known = {ENVOY_PORT: self.gateway_port, ADMIN_PORT: admin_port, PICKER_PORT: picker_port}
        engines = config["static_resources"]["clusters"][0].get("load_assignment")
        if engines is not None:
            template = engines["endpoints"][0]["lb_endpoints"][0]
            rows = [yaml.safe_load(yaml.safe_dump(template)) for _ in engine_ports]
            for row, port in zip(rows, engine_ports, strict=True):
                row["endpoint"]["address"]["socket_address"]["port_value"] = port
            engines["endpoints"][0]["lb_endpoints"] = rows
        return with_ports(config, known)


def with_ports(node: Any, known: dict[int, int]) -> Any:
    """The document with each `port_value` in `known` replaced."""
    if isinstance(node, dict):
        return {
            key: known.get(value, value) if key == "port_value" else with_ports(value, known)
            for key, value in node.items()
        }
    return [with_ports(each, known) for each in node] if isinstance(node, list) else node


class Plant:
    """Everything, started in order. Each Envoy has a picker that suits it."""

    def __init__(
        self, folder: Path, example: str, *picker_flags: object, engines: int = 3, **engine_settings: object
    ) -> None:
        self.folder = folder
        settings = {"enable_prompt_tokens_details": True, **engine_settings}
        self.engines = [
            MockEngine(log=folder / f"engine-{number}.log", **settings).ready("/health") for number in range(engines)
        ]
        self.index = Index(*self.engines, folder=folder, log=folder / "index.log").live()
        self.publishers = folder / f"publishers-{self.index.port}.yaml"
        patient = ["--match-timeout", 5, *picker_flags]  # this machine may be busy
        flags = ["--single-address", *patient] if example == ORIGINAL_DST else patient
        self.picker = Picker(folder, self.publishers, *flags, index_url=self.index.url)
        self.envoy = Envoy(folder, example, self.picker.grpc_port, [engine.port for engine in self.engines])
        self.picker.start()
        self.envoy.start()

    def stop(self) -> None:
        for process in (self.envoy, self.picker, self.index, *self.engines):
            process.stop()

    def engine(self, name: str) -> MockEngine:
        return self.engines[int(name.removeprefix("engine-"))]

    def running(self) -> float:
        """Requests that the engines compute."""
        return sum(
            engine.metric("vllm:num_requests_running") for engine in self.engines if engine.process.poll() is None
        )

    def settle(self) -> None:
        """Wait until every stream of the picker has ended."""
        wait_until("the picker has no request in flight", lambda: self.in_flight() == 0)

    def in_flight(self) -> float:
        names = [f"engine-{number}" for number in range(len(self.engines))]
        return sum(self.picker.metric("kvsync_router_endpoint_inflight_requests", endpoint=name) for name in names)
