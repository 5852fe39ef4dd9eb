"""Which backends this machine has, and the reason for each that it lacks.

A probe tries the thing itself where that is cheap (a segment is created, a socket is bound). UCX and GPUDirect Storage
are looked for by their libraries and drivers. The kit has no code that drives them, so they are reported as missing
even where they are installed: a transfer that the kit only pretended to make would prove nothing.
"""

import ctypes.util
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvsync_testkit.agents.carriers import Carrier, PosixCarrier, SharedMemoryCarrier, TcpCarrier
from kvsync_testkit.naming import unknown_name
from kvsync_testkit.physical import StorageKind, storage_unavailable


def _probe_posix() -> str | None:
    return storage_unavailable(StorageKind.DISK)


def _probe_shm() -> str | None:
    return storage_unavailable(StorageKind.SHARED)


def _probe_tcp() -> str | None:
    try:
        socket.create_server(("127.0.0.1", 0)).close()
    except OSError as error:
        return f"no TCP socket can listen on loopback: {error}"
    return None


def _probe_ucx() -> str | None:
    if ctypes.util.find_library("ucp") is None:
        return "the UCX library libucp is not installed"
    return "libucp is installed, but the kit has no transfer that uses it"


def _probe_gds() -> str | None:
    if ctypes.util.find_library("cufile") is None:
        return "the GPUDirect Storage library libcufile is not installed"
    if not Path("/proc/driver/nvidia-fs").exists():
        return "libcufile is installed, but the nvidia-fs driver is not loaded"
    return "GPUDirect Storage is installed, but the kit has no transfer that uses it"


_PROBES: Final[dict[str, Callable[[], str | None]]] = {
    "POSIX": _probe_posix,
    "SHM": _probe_shm,
    "TCP": _probe_tcp,
    "UCX": _probe_ucx,
    "GDS_MT": _probe_gds,
}
_CARRIERS: Final[dict[str, Callable[[], Carrier]]] = {
    "POSIX": PosixCarrier,
    "SHM": SharedMemoryCarrier,
    "TCP": TcpCarrier,
}

KNOWN_BACKENDS: Final = tuple(_PROBES)
"""Every backend name the kit knows, whether or not this machine has it."""


def backend_unavailable(name: str) -> str | None:
    """Why this machine lacks a backend, in words for a skip message; None if it has it.

    Raises:
        ConfigurationError: no backend has this name.
    """
    if name not in _PROBES:
        raise unknown_name("backend", name, KNOWN_BACKENDS)
    return _PROBES[name]()


def make_carrier(name: str) -> Carrier:
    """What moves the bytes for a backend that is available."""
    return _CARRIERS[name]()
