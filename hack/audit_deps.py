#!/usr/bin/env python3
"""Looks up known vulnerabilities of the locked dependencies: `make audit-deps` runs it.

    audit_deps.py [ROOT]

pip-audit checks the lock files of Python, cargo-audit that of the native core. Their data come from the network. What
cannot be had is reported as LEFT OUT with the reason and is no failure. The exit code is 1 if anything was found.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCKS = ("dev", "mockpod", "indexer", "operator")
LONGEST_S = 600


def main(arguments: list[str]) -> int:
    """Check every lock file and return the exit code."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    found = 0
    for lock in LOCKS:
        found += audit_python(root / "requirements" / f"{lock}.lock")
    found += audit_rust(root / "native")
    return 1 if found else 0


def audit_python(lock: Path) -> int:
    """Print the vulnerabilities in one lock file and return their number."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps", "--disable-pip"]
    code, output, problem = run([*command, "--format", "json", "--progress-spinner", "off"], lock.parent)
    report = decoded(output)
    if report is None:
        left_out(lock.name, problem if code else "pip-audit printed no report")
        return 0
    found = [
        (one["name"], one["version"], each["id"]) for one in report["dependencies"] for each in one.get("vulns", ())
    ]
    for name, version, identity in found:
        print(f"{lock.name}: {name} {version}: {identity}")
    if not found:
        print(f"{lock.name}: {len(report['dependencies'])} packages, no known vulnerability")
    return len(found)


def audit_rust(folder: Path) -> int:
    """Print the vulnerabilities in the lock file of the native core and return their number."""
    if shutil.which("cargo-audit") is None:
        left_out("native/Cargo.lock", "cargo-audit is not installed (cargo install --locked cargo-audit)")
        return 0
    _, output, problem = run(["cargo", "audit", "--json"], folder)
    report = decoded(output)
    if report is None:
        left_out("native/Cargo.lock", problem)
        return 0
    found = report["vulnerabilities"]["list"]
    for each in found:
        print(f"native/Cargo.lock: {each['package']['name']} {each['package']['version']}: {each['advisory']['id']}")
    if not found:
        print("native/Cargo.lock: no known vulnerability")
    return len(found)


def run(command: list[str], folder: Path) -> tuple[int, str, str]:
    """(exit code, stdout, last line of stderr) of a command."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, "", str(error)
    lines = done.stderr.strip().splitlines()
    return done.returncode, done.stdout, lines[-1] if lines else f"exit code {done.returncode}"


def decoded(output: str) -> dict[str, Any] | None:
    """The report in the output; None if there is none."""
    try:
        report = json.loads(output)
    except ValueError:
        return None
    return report if isinstance(report, dict) else None


def left_out(what: str, why: str) -> None:
    """Say what was not checked."""
    print(f"LEFT OUT: {what}: {why[:300]}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
