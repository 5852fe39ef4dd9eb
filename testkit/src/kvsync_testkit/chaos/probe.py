"""Measurements from inside a network namespace; only the standard library, because it runs as a plain script.

probe.py connect HOST PORT      → {"result": "open" | "refused" | "timeout", "seconds": …}
probe.py greet HOST PORT        → seconds until the ZMTP greeting of the server has come
probe.py knock HOST PORT        → of 60 connections begun at once, how many are open before TCP asks a second time
probe.py fetch HOST PORT        → bytes per second of the engine's metrics, asked for again and again
probe.py store FOLDER           → seconds per write to the disk; waits for a line of input first
probe.py spin | fill BYTES      → uses a processor, or memory, until it is ended
"""

import http.client
import json
import os
import socket
import sys
import time
from pathlib import Path

TIMEOUT_S = 1.5
KNOCKS = 60
FETCHED_BYTES = 256 << 10
SECOND_SYN_S = 1.0


def connect(host: str, port: int) -> dict[str, object]:
    """Open a TCP connection."""
    began = time.monotonic()
    try:
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
        result = "open"
    except ConnectionRefusedError:
        result = "refused"
    except OSError as error:
        result = "timeout" if isinstance(error, TimeoutError) else f"error: {error}"
    return {"result": result, "seconds": round(time.monotonic() - began, 4)}


def greet(host: str, port: int) -> dict[str, object]:
    """Measure the time from the connection to the greeting, which includes one trip in each direction."""
    began = time.monotonic()
    try:
        with socket.create_connection((host, port), timeout=5.0) as link:
            link.sendall(b"\xff" + b"\x00" * 8 + b"\x7f\x03")  # the beginning of a ZMTP 3 greeting
            first = link.recv(1)
    except OSError as error:
        return {"result": f"error: {error}", "seconds": None}
    return {"result": "greeted" if first else "closed", "seconds": round(time.monotonic() - began, 4)}


def knock(host: str, port: int) -> dict[str, object]:
    """Begin connections at once, and count those that are open before the kernel sends a second SYN (after 1 s).

    ICMP would be simpler, but where network policies are enforced they admit TCP alone.
    """
    links = [socket.socket() for _ in range(KNOCKS)]
    try:
        for link in links:
            link.setblocking(False)
            link.connect_ex((host, port))
        time.sleep(0.9 * SECOND_SYN_S)
        answered = sum(_is_open(link) for link in links)
    finally:
        for link in links:
            link.close()
    return {"sent": KNOCKS, "answered": answered}


def _is_open(link: socket.socket) -> bool:
    try:
        link.getpeername()
    except OSError:
        return False
    return True


def fetch(host: str, port: int) -> dict[str, object]:
    """Measure a transfer from a port that network policies leave open."""
    began, size = time.monotonic(), 0
    link = http.client.HTTPConnection(host, port, timeout=15.0)
    try:
        while size < FETCHED_BYTES:
            link.request("GET", "/metrics")
            size += len(link.getresponse().read())
    finally:
        link.close()
    return {"bytes": size, "bytes_per_s": round(size / max(1e-6, time.monotonic() - began))}


def store(folder: str) -> dict[str, object]:
    """Write a small file three times and measure until it is on the disk; the quickest counts."""
    sys.stdin.readline()
    file = Path(folder) / f".probe.{os.getpid()}"
    seconds = []
    try:
        for _ in range(3):
            began = time.monotonic()
            with file.open("wb") as target:
                target.write(os.urandom(4096))
                target.flush()
                os.fsync(target.fileno())
            seconds.append(time.monotonic() - began)
    finally:
        file.unlink()
    return {"seconds": round(min(seconds), 4)}


def spin() -> None:
    """Use a processor for as long as the process lives."""
    while True:
        sum(range(10_000))


def fill(size: int) -> None:
    """Hold `size` bytes of memory until the process is ended."""
    held = bytearray(size)
    held[::4096] = b"\x01" * len(held[::4096])
    while True:
        time.sleep(1.0)


def main(arguments: list[str]) -> None:
    """Run one measurement and print it as JSON."""
    verb, *rest = arguments
    if verb == "store":
        sys.stdout.write(json.dumps(store(rest[0])) + "\n")
    elif verb == "spin":
        spin()
    elif verb == "fill":
        fill(int(rest[0]))
    else:
        measure = {"connect": connect, "greet": greet, "knock": knock, "fetch": fetch}[verb]
        sys.stdout.write(json.dumps(measure(rest[0], int(rest[1]))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
