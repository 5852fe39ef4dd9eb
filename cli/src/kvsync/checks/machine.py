"""Checks of this machine: versions, commands, the index core, addresses and sockets."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import zmq

from kvsync.checks.finding import Finding
from kvsync.errors import KvsyncError
from kvsync.local import detached_run
from kvsync.local.addresses import claim_network
from kvsync.local.process import executable
from kvsync.local.stack import wanted_ports
from kvsync.report.versions import MEMBERS, native_version

ENTRY_POINTS = ("kvsync-mockpod", "kvsync-indexer", "kvsync-router", "kvsync-operator")
SETUP = "make setup"
DEMO_ENGINES = 3
RUST_CPU_S = 35
"""CPU time of the compilation on a 2.x GHz server core; docs/testing/benchmarks.md has the measurement."""


def check_machine() -> Iterator[Finding]:
    """Run every local check; a check comes after those on which it depends."""
    yield _python()
    yield _versions()
    yield _entry_points()
    yield _core()
    yield _first_build()
    yield _addresses()
    yield _binding()
    yield _runs()


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        step = "use Linux (or WSL 2 or a container), which demo and up need for one address of 127.0.0.0/8 per engine"
        return Finding("problem", "system", found, step)
    return Finding("ok", "system", found)


def _versions() -> Finding:
    found: list[str] = []
    for name in MEMBERS:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            return Finding("problem", "packages", f"{name} is not installed", SETUP)
    return Finding("ok", "packages", ", ".join([*found, f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"]))


def _entry_points() -> Finding:
    missing = [name for name in ENTRY_POINTS if shutil.which(executable(name)) is None]
    if missing:
        return Finding("problem", "commands", f"not found: {', '.join(missing)}", SETUP)
    return Finding("ok", "commands", ", ".join(ENTRY_POINTS))


def _core() -> Finding:
    from kvsync_indexer.core import make_core

    core = make_core("auto")
    native = native_version()
    if native is None:
        return Finding(
            "note", "index core", f"{core.name}; the native core is not installed", "install Rust, then make setup"
        )
    return Finding("ok", "index core", f"{core.name}; native {native}")


def _first_build() -> Finding:
    """How long `make setup` takes in a clean clone, of which other machines need to be told before they try."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    on = f"on {cores} core{'s' if cores > 1 else ''}"
    if shutil.which("cargo") is None:
        detail = f"make setup downloads packages and compiles nothing {on}; later runs take about a second"
        return Finding(
            "note", "first build", detail, "install Rust for the native core, which is several times as fast"
        )
    detail = f"make setup downloads packages and compiles the native core, {RUST_CPU_S} s of CPU time {on}"
    return Finding("ok", "first build", f"{detail}; later runs take about a second")


def _addresses() -> Finding:
    try:
        network = claim_network(lambda network: wanted_ports(network, DEMO_ENGINES))
    except KvsyncError as error:
        return Finding(
            "problem",
            "ports",
            str(error),
            "end the process that listens there, or bind it to one address instead of all",
        )
    network.release()
    return Finding("ok", "ports", f"8000, 5557, 5558, 8080 and 8090 are free on {network.prefix}.0/24")


def _binding() -> Finding:
    """Bind an IPv4-mapped IPv6 address, which vLLM and the mock engine do with an event socket on a single address."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        with context.socket(zmq.PUB) as publisher:
            publisher.setsockopt(zmq.IPV6, 1)
            publisher.bind("tcp://[::ffff:127.0.0.1]:*")
    except zmq.ZMQError as error:
        step = "enable IPv6 in the kernel; the machine needs no IPv6 address"
        return Finding("problem", "events sockets", f"cannot bind an IPv4-mapped address: {error.strerror}", step)
    finally:
        context.destroy(linger=0)
    return Finding("ok", "events sockets", "can be bound to a single address")


def _runs() -> Finding:
    runs = detached_run.find_all()
    if not runs:
        return Finding("ok", "running", "no run of kvsync up or kvsync demo --keep")
    step = "kvsync stop" if len(runs) == 1 else "kvsync stop --out FOLDER, or kvsync stop --all"
    return Finding("note", "running", "; ".join(run.describe() for run in runs), step)
