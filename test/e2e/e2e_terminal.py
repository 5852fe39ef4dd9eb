"""A terminal in which the commands of the end-to-end guide are typed: variables stay, and port-forwards run on."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until


class Terminal:
    """Runs blocks of commands with `kubectl` on the path; forwarded ports get free numbers on this machine."""

    def __init__(self, root: Path, folder: Path, kubeconfig: Path, node: str, names: Mapping[str, str]) -> None:
        """Replace the `names` that the guide uses; `node` is a kind node that has kubectl, if this machine has none."""
        self._root, self._names = root, names
        self._ports: dict[str, int] = {}
        self._forwards: list[subprocess.Popen[str]] = []
        self.environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
        if shutil.which("kubectl") is None:
            subprocess.run(
                ["docker", "cp", f"{node}:/usr/bin/kubectl", str(folder / "kubectl")], check=True, timeout=60
            )
            self.environment["PATH"] = f"{folder}:{self.environment['PATH']}"

    def type(self, script: str, *, check: bool = True) -> str:
        """Run a block and return its output; with `check`, raise `AssertionError` with it if a command fails."""
        rest = []
        for line in self._localise(script).splitlines():
            if "port-forward" in line:
                self._forward(line)
            elif line.startswith("export "):
                self.environment |= dict(pair.split("=", 1) for pair in shlex.split(line)[1:])
            else:
                rest.append(line)
        options = ["-e", "-o", "pipefail"] if check else []
        command = ["bash", *options, "-c", "\n".join(rest)]
        done = subprocess.run(
            command, cwd=self._root, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert not check or done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def _localise(self, script: str) -> str:
        for name, here in self._names.items():
            script = script.replace(name, here)
        for port in re.findall(r"port-forward \S+((?: \d+)+)", script):
            for number in port.split():
                self._ports.setdefault(number, free_ports(1)[0])
        script = re.sub(
            r"(port-forward \S+)((?: \d+)+)",
            lambda found: found[1] + "".join(f" {self._ports[one]}:{one}" for one in found[2].split()),
            script,
        )
        return re.sub(r"127\.0\.0\.1:(\d+)", lambda found: f"127.0.0.1:{self._ports.get(found[1], found[1])}", script)

    def _forward(self, line: str) -> None:
        command = shlex.split(os.path.expandvars(_with(self.environment, line.removesuffix("&"))))
        expected = sum(":" in word for word in command)
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        self._forwards.append(process)
        assert process.stdout is not None
        said = iter(process.stdout.readline, "")
        for _ in range(expected):
            wait_until("kubectl forwards a port", lambda: "127.0.0.1" in next(said), deadline_s=30.0)

    def close(self) -> None:
        """End the port-forwards."""
        for process in self._forwards:
            process.terminate()
            process.wait(20)
            if process.stdout is not None:
                process.stdout.close()


def _with(variables: Mapping[str, str], line: str) -> str:
    return re.sub(r'"?\$(\w+)"?', lambda found: variables[found[1]], line)
