"""The local backend: engines, index and router as processes of this machine, each in a network namespace of its own.

Without root the processes share the loopback interface, and only the faults that need no namespace run: those of the
event plane, killed processes, and a delay.
"""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from kvsync_testkit.chaos import means, web
from kvsync_testkit.chaos.backend import Place, Remembered
from kvsync_testkit.chaos.components import BIN, Component, engine_command, index_command
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faketime import ProcessClock, find_faketime
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.load import MODEL
from kvsync_testkit.chaos.means import Means
from kvsync_testkit.chaos.namespaces import Namespaces
from kvsync_testkit.chaos.processes import Process
from kvsync_testkit.chaos.proxy import DelayProxy
from kvsync_testkit.chaos.system import ENGINE_ENV, Shape
from kvsync_testkit.kube import Answer
from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until


class LocalBackend(Remembered):
    """Three engines, an index, and a router in a process of its own."""

    name = "local"

    def __init__(self, logs: Path, index_env: Mapping[str, str] | None = None) -> None:
        """Keep the logs in a folder; a test may set the environment of the index and the router."""
        self._logs = logs
        self._index_env = dict(index_env or {})
        self._folder = Path(tempfile.mkdtemp(prefix="kvsync-chaos-"))
        self._volume = self._folder / "snapshots"
        self._shape: Shape | None = None
        self._parts: dict[str, Component] = {}
        self._network: Namespaces | None = None
        self._proxies: list[DelayProxy] = []
        self._clocks: dict[str, ProcessClock] = {}
        self._means = Means()
        self._generation = 0

    # what the machine can do

    def preflight(self, fault: Fault) -> None:
        """Raise CapabilityError if the fault cannot be injected here."""
        if fault.cluster_only:
            raise CapabilityError("processes without a cluster have neither an operator nor an API server")
        if fault.kind == "clock":
            find_faketime()
        if fault.kind == "delay":
            return  # a proxy
        if fault.kind in means.NETWORK_KINDS or fault.kind in means.CONTROLLER_OF:
            means.preflight(fault)

    # bringing it up and down

    def start(self, fault: Fault) -> None:
        """Start a system of the shape that the fault needs, unless one runs."""
        self._pair = None
        shape = Shape.of(fault)
        if shape == self._shape and all(part.process.pids for part in self._parts.values()):
            return
        self.stop()
        self._shape = shape
        if os.geteuid() == 0:
            self._network = Namespaces()
            self._network.create()
        for number in range(3):
            self._start_engine(f"engine-{number}")
        self._write_publishers()
        self._start_index()
        self._wait_up()

    def _wait_up(self) -> None:
        for name, part in self._parts.items():
            path = "/healthz" if name in ("index", "router") else "/health"
            wait_until(
                f"{name} answers ({part.process.tail(1)})",
                lambda name=name, path=path: self.call(name, "GET", path, timeout_s=2.0).status == 200,  # type: ignore[misc]
                deadline_s=60.0,
                retry_on=(OSError,),
            )

    def _add(self, name: str, ports: int) -> Component:
        if self._network is not None:
            address, inside = self._network.add(name)
            numbers = [8000, 5557, 5558][:ports] if name not in ("index", "router") else [8090]
        else:
            address, inside, numbers = "127.0.0.1", (), free_ports(ports)
        part = Component(Process(name, (), self._logs / f"{name}.log"), address, inside, numbers)
        self._parts[name] = part
        return part

    def _start_engine(self, name: str) -> None:
        assert self._shape is not None
        part = self._add(name, 3)
        environment = dict(ENGINE_ENV)
        if self._shape.clock:
            clock = self._clocks[name] = ProcessClock(self._folder / f"clock-{name}")
            environment |= clock.environment
        command = engine_command(part, self._shape)
        part.process = Process(name, command, self._logs / f"{name}.log", environment)
        part.process.start()
        if self._shape.proxied and name == "engine-0":
            host = self._network.host if self._network else "127.0.0.1"
            self._proxies = [DelayProxy(host, (part.address, port)) for port in part.ports[1:]]

    def _write_publishers(self) -> None:
        file = self._folder / "publishers.yaml"
        file.with_suffix(".new").write_text(yaml.safe_dump([self.publisher_row(name) for name in self.engines()]))
        file.with_suffix(".new").rename(file)

    def publisher_row(self, name: str) -> dict[str, str]:
        """Return the row of an engine in the publishers file. A test may plant a bug here."""
        place = self.place(name)
        host, events = place.route
        replay = self._proxies[1].port if place.through else place.replay
        url = f"http://{place.address}:{place.http}"
        return {
            "name": name,
            "model": MODEL,
            "endpoint": f"tcp://{host}:{events}",
            "replay_endpoint": f"tcp://{host}:{replay}",
            "http_url": url,
            "debug_url": url,
        }

    def router_command(self, address: str, port: int, index_url: str) -> list[str]:
        """Return the command of the router. A test may plant a bug here."""
        return [str(BIN / "kvsync-router"), "--host", address, "--port", str(port), "--index-url", index_url]

    def _start_index(self) -> None:
        index, router = self._add("index", 1), self._add("router", 1)
        assert self._shape is not None
        volume = self._volume if self._shape.snapshot else None
        command = index_command(index, self._folder / "publishers.yaml", volume)
        index.process = Process("index", command, self._logs / "index.log", self._index_env)
        index.process.start()
        command = self.router_command(router.address, router.ports[0], f"http://{index.address}:{index.ports[0]}")
        router.process = Process("router", [*router.inside, *command], self._logs / "router.log", self._index_env)
        router.process.start()

    def stop(self) -> None:
        """End all processes and delete the namespaces."""
        with contextlib.suppress(ChaosError):
            self._means.heal()
        for part in self._parts.values():
            part.process.end()
        for proxy in self._proxies:
            proxy.close()
        if self._network is not None:
            self._network.delete()
        self._parts, self._proxies, self._network, self._shape = {}, [], None, None

    def discard(self) -> None:
        """Start a fresh system for the next fault."""
        self._shape = None

    # what runs

    def engines(self) -> Sequence[str]:
        """Return the names of the engines."""
        return sorted(name for name in self._parts if name not in ("index", "router"))

    def place(self, name: str) -> Place:
        """Return where a component runs."""
        part = self._parts[name]
        identity = f"{name} at {part.address}:{part.ports[0]}"
        http, events, replay = (*part.ports, 0, 0)[:3]
        through = None
        if self._proxies and name == "engine-0":
            through = (self._network.host if self._network else "127.0.0.1", self._proxies[0].port)
        return Place(
            name, part.address, part.inside, identity, part.process.pids, http, events, replay, through=through,
            volume=str(self._volume) if name == "index" and self._volume.exists() else "",
        )  # fmt: skip

    def router_shares_index(self) -> bool:
        """Return False: the router is a process of its own."""
        return False

    def call(self, target: str, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
        """Send a request to a component."""
        part = self._parts.get(target)
        if part is None:
            raise ConnectionError(f"{target} does not exist")
        return web.send(part.address, part.ports[0], method, path, body, timeout_s=timeout_s)

    # faults

    def apply(self, fault: Fault) -> None:
        """Inject the fault."""
        self._pair = self.pair(fault)
        engine = self._pair.affected
        part = self._parts[engine]
        self.set_plan(engine, fault)
        if fault.kind == "kill":
            part.process.kill()
            part.process.start()
        elif fault.kind == "failure":
            part.process.kill()
        elif fault.kind == "replace":
            self._replace(engine)
        elif fault.kind == "index_kill":
            self._parts["index"].process.kill()
            self._parts["index"].process.start()
        elif fault.kind == "delay":
            for proxy in self._proxies:
                proxy.delay_s = float(fault.settings["ms"]) / 1000.0
        elif fault.kind == "clock":
            self._clocks[engine].set_ahead(int(fault.settings["seconds"]))
        elif fault.kind == "reset":
            self.reset_cache(engine)
        elif fault.kind != "plane":
            self._means.inject(fault, self.place(engine), self.place("index"))

    def _replace(self, engine: str) -> None:
        """End an engine and start another one with a new name and address, as a deployment does."""
        gone = self._parts.pop(engine)
        gone.process.end()
        self._generation += 1
        self._start_engine(f"{engine.split('.')[0]}.{self._generation}")
        self._write_publishers()

    def injected(self, fault: Fault) -> bool:
        """Return True: `apply` returns when the commands have succeeded."""
        del fault
        return True

    def heal(self, fault: Fault) -> None:
        """Take the fault away."""
        self.clear_plan(fault)
        if fault.kind == "failure":
            self._parts[self.pair(fault).affected].process.start()
        elif fault.kind == "delay":
            for proxy in self._proxies:
                proxy.delay_s = 0.0
        elif fault.kind == "clock":
            self._clocks[self.pair(fault).affected].set_ahead(0)
        self._means.heal()
