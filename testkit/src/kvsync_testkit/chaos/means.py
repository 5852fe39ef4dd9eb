"""The means that work wherever this machine sees a component's processes: iptables, tc, signals and control groups.

A component is reached through its network namespace (`Place.inside`) and its processes (`Place.pids`), whether the
local backend started them or the kubelet of a kind node on this machine. Every step remembers how it is undone.
"""

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from kvsync_testkit.chaos import cgroups
from kvsync_testkit.chaos.backend import Place
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.shellout import require_programs, run

PROBE = (sys.executable, "-I", str(Path(__file__).with_name("probe.py")))
CONTROLLER_OF = {"cpu": "cpu", "memory": "memory", "io": "blkio"}
"""By kind of fault, the controller of control groups that injects it; version 2 has all of them in one hierarchy."""
NETWORK_KINDS = frozenset({"partition", "port_blocked", "port_refused", "loss", "bandwidth", "delay"})


def preflight(fault: Fault) -> None:
    """Raise CapabilityError if the kernel or this user cannot inject the fault."""
    if os.geteuid() != 0:
        raise CapabilityError("network namespaces, iptables and control groups need root")
    if fault.kind in NETWORK_KINDS:
        require_programs("ip", "iptables", "tc", "nsenter")
    if fault.kind in CONTROLLER_OF:
        cgroups.group_of(os.getpid(), CONTROLLER_OF[fault.kind])
    if fault.kind in ("loss", "bandwidth", "delay"):
        _try_in_a_namespace(fault.kind)


def _try_in_a_namespace(kind: str) -> None:
    """Ask the kernel for the match or the qdisc in a namespace of its own, which ends with the command."""
    tries = {
        "loss": "iptables -A INPUT -m statistic --mode random --probability 0.5 -j DROP",
        "bandwidth": "tc qdisc add dev lo root tbf rate 1mbit burst 32kb latency 100ms",
        "delay": "tc qdisc add dev lo root netem delay 10ms",
    }
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", tries[kind]], capture_output=True, text=True, timeout=20, check=False
    )
    if done.returncode != 0:
        raise CapabilityError(f"the kernel cannot: {tries[kind]}: {done.stderr.strip()}")


class Means:
    """Injects one fault at a time."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def inject(self, fault: Fault, engine: Place, index: Place) -> None:
        """Break the engine, or its connection with the index.

        Raises:
            ChaosError: a command failed; what was done before it is undone by `heal`.
        """
        port = engine.replay if fault.settings.get("port") == "replay" else engine.events
        if fault.kind == "partition":
            self._rule(engine, ["INPUT", "-s", index.address, "-j", "DROP"])
            self._rule(index, ["INPUT", "-s", engine.address, "-j", "DROP"])
        elif fault.kind == "port_blocked":
            self._rule(engine, ["INPUT", "-p", "tcp", "-s", index.address, "--dport", str(port), "-j", "DROP"])
            self._rule(index, ["INPUT", "-p", "tcp", "-s", engine.address, "--sport", str(port), "-j", "DROP"])
        elif fault.kind == "port_refused":
            refuse = ["-j", "REJECT", "--reject-with", "tcp-reset"]
            self._rule(engine, ["INPUT", "-p", "tcp", "-s", index.address, "--dport", str(port), *refuse])
        elif fault.kind == "loss":
            share = str(fault.settings["percent"] / 100)
            chance = ["-m", "statistic", "--mode", "random", "--probability", share]
            self._rule(index, ["INPUT", "-s", engine.address, *chance, "-j", "DROP"])
        elif fault.kind == "bandwidth":
            self._shape(engine, "tbf", "rate", f"{fault.settings['bits']}bit", "burst", "32kb", "latency", "400ms")
        elif fault.kind == "delay":
            self._shape(engine, "netem", "delay", f"{fault.settings['ms']}ms")
        elif fault.kind == "stop":
            self._stop(engine)
        elif fault.kind == "cpu":
            self._compete(fault, engine)
        elif fault.kind == "memory":
            self._accompany(engine, "memory", ["fill", str(fault.settings["bytes"])])
        elif fault.kind == "io":
            self._slow_disk(fault, index)
        else:
            raise ChaosError(f"no means for {fault.kind}")

    def heal(self) -> None:
        """Undo everything, last step first. A step that fails does not keep the others from being undone."""
        problems = []
        while self._undo:
            try:
                self._undo.pop()()
            except (ChaosError, OSError) as error:
                problems.append(str(error))
        if problems:
            raise ChaosError("; ".join(problems))

    def _rule(self, place: Place, rule: list[str]) -> None:
        run([*place.inside, "iptables", "-w", "-I", *rule])
        self._undo.append(lambda: run([*place.inside, "iptables", "-w", "-D", *rule]))

    def _shape(self, place: Place, *qdisc: str) -> None:
        run([*place.inside, "tc", "qdisc", "replace", "dev", "eth0", "root", *qdisc])
        self._undo.append(lambda: run([*place.inside, "tc", "qdisc", "del", "dev", "eth0", "root"]))

    def _stop(self, place: Place) -> None:
        if not place.pids:
            raise ChaosError(f"no process of {place.name} is visible")
        for pid in place.pids:
            os.kill(pid, signal.SIGSTOP)
            self._undo.append(functools.partial(_signal, pid, signal.SIGCONT))

    def _compete(self, fault: Fault, place: Place) -> None:
        folder = cgroups.group_of(place.pids[0], "cpu")
        before = cgroups.set_share(folder, float(fault.settings["share"]))
        self._undo.append(lambda: cgroups.restore_share(folder, before))
        for _ in range(int(fault.settings["workers"])):
            self._accompany(place, "cpu", ["spin"])

    def _slow_disk(self, fault: Fault, place: Place) -> None:
        """Let the component perform only so many operations per second on the disk of its volume."""
        folder, volume = cgroups.group_of(place.pids[0], CONTROLLER_OF["io"]), Path(place.volume)
        cgroups.limit_operations(folder, volume, int(fault.settings["operations"]))
        self._undo.append(lambda: cgroups.limit_operations(folder, volume, 0))

    def _accompany(self, place: Place, controller: str, verb: list[str]) -> None:
        """Run a stressor in the control group of the component."""
        folder = cgroups.group_of(place.pids[0], controller)
        process = subprocess.Popen([*PROBE, *verb])
        self._undo.append(lambda: _end(process))
        cgroups.join(folder, process.pid)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(20)
