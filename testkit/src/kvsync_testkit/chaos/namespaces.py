"""Network namespaces joined by a bridge in a namespace of its own, which this machine reaches as well.

The bridge is not in the machine's own namespace, because docker's rules for forwarded packets would apply to it there.
"""

import ipaddress
import os

from kvsync_testkit.chaos.errors import ChaosError
from kvsync_testkit.chaos.shellout import run


class Namespaces:
    """A network 10.213.N.0/24 with the machine at .1; namespaces and interfaces carry the prefix of the process id."""

    def __init__(self) -> None:
        self._stem = f"kvc{os.getpid() % 100_000}"
        self._hub = f"{self._stem}-hub"
        self._names: list[str] = []
        self._net = _free_network()
        self.host = f"{self._net}.1"

    def create(self) -> None:
        """Create the bridge and connect this machine to it."""
        run(["ip", "netns", "add", self._hub])
        self._names.append(self._hub)
        inside = ["ip", "netns", "exec", self._hub]
        run([*inside, "ip", "link", "add", "br0", "type", "bridge"])
        run([*inside, "ip", "link", "set", "br0", "up"])
        self._connect(f"{self._stem}h", "br-host")
        run(["ip", "address", "add", f"{self.host}/24", "dev", f"{self._stem}h"])
        run(["ip", "link", "set", f"{self._stem}h", "up"])

    def _connect(self, near: str, far: str) -> None:
        run(["ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", self._hub])
        run(["ip", "netns", "exec", self._hub, "ip", "link", "set", far, "master", "br0"])
        run(["ip", "netns", "exec", self._hub, "ip", "link", "set", far, "up"])

    def add(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Create a namespace and return its address and the prefix of commands that run in it."""
        number = len(self._names) + 1
        full = f"{self._stem}-{name}"
        run(["ip", "netns", "add", full])
        self._names.append(full)
        near = f"{self._stem}v{number}"
        self._connect(near, f"port{number}")
        run(["ip", "link", "set", near, "netns", full, "name", "eth0"])
        inside = ("ip", "netns", "exec", full)
        address = f"{self._net}.{number + 1}"
        run([*inside, "ip", "address", "add", f"{address}/24", "dev", "eth0"])
        for device in ("lo", "eth0"):
            run([*inside, "ip", "link", "set", device, "up"])
        return address, inside

    def delete(self) -> None:
        """Delete every namespace, and with them the interfaces."""
        for name in reversed(self._names):
            run(["ip", "netns", "delete", name], check=False)
        run(["ip", "link", "delete", f"{self._stem}h"], check=False)
        self._names.clear()


def _free_network() -> str:
    taken = {
        ipaddress.ip_interface(line.split()[3]).network for line in run(["ip", "-4", "-o", "address"]).splitlines()
    }
    for number in range(os.getpid() % 200, 250):
        network = ipaddress.ip_network(f"10.213.{number}.0/24")
        if not any(network.overlaps(one) for one in taken):
            return f"10.213.{number}"
    raise ChaosError("no network 10.213.N.0/24 is free")
