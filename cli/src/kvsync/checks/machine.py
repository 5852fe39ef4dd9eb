"""Checks of this machine: versions, commands, the index core, addresses and sockets."""

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


def check_machine() -> Iterator[Finding]:
    """Run every local check; a check comes after those on which it depends."""
    yield _python()
    yield _versions()
    yield _entry_points()
    yield _core()
    yield _addresses()
    yield _binding()
    yield _kept()


def _python() -> Finding:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.platform != "linux":
        step = "use Linux for demo and up, which need one address of 127.0.0.0/8 per engine"
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


def _kept() -> Finding:
    run = detached_run.find(detached_run.DEFAULT_FOLDER)
    if run is None:
        return Finding("ok", "left running", f"nothing in {detached_run.DEFAULT_FOLDER}")
    return Finding(
        "note", "left running", f"a demo in {detached_run.DEFAULT_FOLDER}: index {run.index_url}", "kvsync stop"
    )
