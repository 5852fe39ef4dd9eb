#!/usr/bin/env python3
"""Check that the tree can be released, or write a version into it.

hack/release_check.py                 checks; `make release-check` runs it
hack/release_check.py --write 0.2.0   writes the version into every file that has it
hack/release_check.py --notes         prints the section of the change log for the present version

A tree can be released if every file has the same version, the change log has a dated section for it with at least one
line and nothing that is not released, no file is changed, and a tag of HEAD names this version.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION = r"\d+\.\d+\.\d+"
PLACES = (
    ("*/pyproject.toml", re.compile(rf'^(version = ")({VERSION})(")', re.MULTILINE)),
    ("native/Cargo.toml", re.compile(rf'^(version = ")({VERSION})(")', re.MULTILINE)),
    ("native/Cargo.lock", re.compile(rf'^(name = "kvsync-native"\nversion = ")({VERSION})(")', re.MULTILINE)),
    ("charts/*/Chart.yaml", re.compile(rf"^((?:appVersion|version): )({VERSION})()$", re.MULTILINE)),
    ("charts/kvsync/tests/operator_test.yaml", re.compile(rf"(kvsync/\w+:)({VERSION})()")),
    ("mockpod/src/kvsync_mockpod/__init__.py", re.compile(rf'^(__version__ = ")({VERSION})(")', re.MULTILINE)),
    ("operator/src/kvsync_operator/objects/images.py", re.compile(rf"(kvsync/\w+:)({VERSION})()")),
)
"""Files that have the version, and how it stands there."""
HEADING = re.compile(
    rf"^## \[(Unreleased|{VERSION})\](?: - (\d{{4}}-\d{{2}}-\d{{2}}))?(?: \(withdrawn\))?$", re.MULTILINE
)


def main(arguments: list[str] | None = None) -> int:
    """Check, write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--write", metavar="VERSION", help="write this version into every file that has one")
    parser.add_argument("--notes", action="store_true", help="print the section of the change log")
    options = parser.parse_args(arguments)
    if options.write is not None:
        if not re.fullmatch(VERSION, options.write):
            parser.error(f"{options.write!r} is not a version such as 0.2.0")
        write_version(options.root, options.write)
        return 0
    found = versions(options.root)
    version = max(found.values(), default="")
    if options.notes:
        print(sections(options.root).get(version, ("", ""))[1])
        return 0
    problems = [*check_versions(found), *check_changelog(options.root, version), *check_tree(options.root, version)]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"version {version} can be released")
    return 1 if problems else 0


def versions(root: Path) -> dict[str, str]:
    """The version by place; a file with several places has several entries."""
    found: dict[str, str] = {}
    for pattern, expression in PLACES:
        for path in sorted(root.glob(pattern)):
            for match in expression.finditer(path.read_text(encoding="utf-8")):
                found[f"{path.relative_to(root)}: {match[1].strip().splitlines()[-1]}"] = match[2]
    return found


def write_version(root: Path, version: str) -> None:
    """Write the version at every place."""
    for pattern, expression in PLACES:
        for path in sorted(root.glob(pattern)):
            text = path.read_text(encoding="utf-8")
            path.write_text(expression.sub(rf"\g<1>{version}\g<3>", text), encoding="utf-8")


def check_versions(found: dict[str, str]) -> list[str]:
    """The places whose version is not the most frequent one."""
    if not found:
        return ["no file has a version"]
    common = max(set(found.values()), key=list(found.values()).count)
    return [
        f"{place} {version}: the other files have {common}" for place, version in found.items() if version != common
    ]


def sections(root: Path) -> dict[str, tuple[str, str]]:
    """(date, text) by version, in the order of the change log."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    return {
        heading[1]: (heading[2] or "", text[heading.end() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    }


def check_changelog(root: Path, version: str) -> list[str]:
    """What the change log lacks for a release of this version."""
    found = sections(root)
    problems: list[str] = []
    if version not in found:
        problems.append(f"CHANGELOG.md: has no section [{version}]")
    else:
        date, text = found[version]
        problems += [] if date else [f"CHANGELOG.md: the section [{version}] has no date"]
        problems += [] if re.search(r"^- ", text, re.MULTILINE) else [f"CHANGELOG.md: the section [{version}] is empty"]
    if found.get("Unreleased", ("", ""))[1]:
        problems.append("CHANGELOG.md: [Unreleased] is not empty; give its lines a version")
    return problems


def check_tree(root: Path, version: str) -> list[str]:
    """Changes that are not committed, and tags that do not fit."""
    problems = ["the tree has changes that are not committed"] if _git(root, "status", "--porcelain") else []
    tags = _git(root, "tag", "--points-at", "HEAD", "--list", "v[0-9]*").split()
    if tags and f"v{version}" not in tags:
        problems.append(f"HEAD has the tag {', '.join(tags)}, and the files have version {version}")
    if not tags and _git(root, "tag", "--list", f"v{version}"):
        problems.append(f"the tag v{version} exists and names another commit; raise the version")
    return problems


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
