#!/usr/bin/env python3
"""Check the links of the Markdown pages without a network: `make verify` and `make docs` run it.

- A relative link names a file or folder that exists.
- An anchor names a heading of the page it points to, by GitHub's rules for heading anchors.
- Every page in `docs/` can be reached from the index, `docs/README.md`, and the index from the repository's README.

The script prints one line per finding and exits 1 if there are any. Links with a scheme (`https:`) are not followed.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

INDEX = Path("docs/README.md")
START = Path("README.md")
SKIPPED_FOLDERS = frozenset({"node_modules", "out", "target", "build"})

FENCE = re.compile(r"^ {0,3}(```|~~~).*?(^ {0,3}\1[`~]*\s*$|\Z)", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*?)[ \t]*#*$", re.MULTILINE)
INLINE_LINK = re.compile(r"\]\(\s*<?([^()\s<>]*(?:\([^()\s]*\)[^()\s<>]*)*)>?(?:\s+[\"'][^)]*)?\s*\)")
DEFINED_LINK = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)", re.MULTILINE)
HTML_LINK = re.compile(r"<(?:a|img)\b[^>]*?\b(?:href|src)=\"([^\"]*)\"", re.IGNORECASE)
SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def main(arguments: list[str]) -> int:
    """Check the pages under the folder in `arguments`, or under the repository."""
    root = (Path(arguments[0]) if arguments else Path(__file__).parent.parent).resolve()
    problems = check(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check(root: Path) -> list[str]:
    """Every problem of the tree, one line each."""
    pages = {path: (root / path).read_text(encoding="utf-8") for path in find_pages(root)}
    anchors = {path: set(heading_anchors(text)) for path, text in pages.items()}
    problems: list[str] = []
    targets: dict[Path, set[Path]] = {path: set() for path in pages}
    for path, text in pages.items():
        for link in find_links(text):
            target, problem = resolve(root, path, link, anchors)
            if problem:
                problems.append(f"{path}: {link}: {problem}")
            elif target is not None:
                targets[path].add(target)
    return problems + find_unreachable(targets)


def find_pages(root: Path) -> list[Path]:
    """Every Markdown file below `root`, relative to it, without hidden folders and build results."""
    found = (path.relative_to(root) for path in root.rglob("*.md"))
    return sorted(
        path for path in found if not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in path.parts)
    )


def find_links(text: str) -> Iterator[str]:
    """The targets of the links and images of a page, code left out."""
    prose = CODE_SPAN.sub("", FENCE.sub("", text))
    for pattern in (INLINE_LINK, DEFINED_LINK, HTML_LINK):
        for match in pattern.finditer(prose):
            yield match[1]


def heading_anchors(text: str) -> Iterator[str]:
    """The anchors that GitHub gives to the headings of a page; a repeated heading gets `-1`, `-2` and so on."""
    seen: dict[str, int] = {}
    for match in HEADING.finditer(FENCE.sub("", text)):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", match[1])
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = seen.get(anchor, 0)
        seen[anchor] = number + 1
        yield f"{anchor}-{number}" if number else anchor


def resolve(root: Path, page: Path, link: str, anchors: dict[Path, set[str]]) -> tuple[Path | None, str]:
    """The page or file that a link names, relative to `root`, and what is wrong with the link ("" if nothing is)."""
    if SCHEME.match(link) or link.startswith("//"):
        return None, ""
    name, _, anchor = unquote(link).partition("#")
    if name.startswith("/"):
        return None, "is absolute; write it relative to the page"
    path = (root / page.parent / name).resolve() if name else root / page
    if not path.is_relative_to(root):
        return None, "leaves the repository"
    if not path.exists():
        return None, "no such file"
    target = path.relative_to(root)
    if anchor and anchor not in anchors.get(target, set()):
        return None, f"no heading with the anchor #{anchor}"
    return target, ""


def find_unreachable(targets: dict[Path, set[Path]]) -> list[str]:
    """The pages of `docs/` that no chain of links leads to from the index, and an index without an inbound link."""
    if INDEX not in targets:
        return [f"{INDEX}: the index of the pages is missing"]
    problems = [] if INDEX in targets.get(START, set()) else [f"{INDEX}: {START} does not link to the index"]
    reached, waiting = {INDEX}, [INDEX]
    while waiting:
        new = {target for target in targets[waiting.pop()] if target in targets} - reached
        reached |= new
        waiting += new
    lost = (path for path in targets if path.parts[0] == INDEX.parts[0] and path not in reached)
    return problems + [f"{path}: cannot be reached from {INDEX}" for path in lost]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
