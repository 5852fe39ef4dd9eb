"""The marked code blocks of the guides.

A comment before a block of commands says how it is checked:

    <!-- setup -->        runs before every other block of the page
    <!-- run -->          runs in the usual situation, and must succeed
    <!-- symptom: X -->   runs in situation X (guides_situations.py); the `text` block after it shows what is seen
    <!-- make -->         calls targets of the Makefile, which must exist
    <!-- cluster -->      needs a cluster, and is not run here
    <!-- values -->       sets what the reader has to choose, and is not run
"""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/testing"
PAGES = ("README", "e2e-test-guide", "performance-testing-guide", "troubleshooting-guide")
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of commands, and what the guide shows as their output."""

    page: str
    mark: str
    script: str
    shown: str = ""

    @property
    def kind(self) -> str:
        return self.mark.partition(":")[0]

    @property
    def name(self) -> str:
        return self.mark.partition(": ")[2]

    def __str__(self) -> str:
        first = self.script.strip().splitlines()[0]
        return f"{self.page}: {self.name or first[:50]}"


def read_blocks(page: str) -> list[Block]:
    """The blocks of commands of a page, in order; a `text` block belongs to the commands before it."""
    blocks: list[Block] = []
    for found in BLOCK.finditer((FOLDER / f"{page}.md").read_text(encoding="utf-8")):
        if found["language"] == "sh":
            blocks.append(Block(page, found["mark"] or "", found["text"]))
        elif found["language"] == "text" and blocks and not blocks[-1].shown:
            last = blocks[-1]
            blocks[-1] = Block(last.page, last.mark, last.script, found["text"])
    return blocks


def normalize(line: str) -> str:
    """A line without what differs from run to run: numbers, and the width of columns."""
    return re.sub(r"\s+", " ", re.sub(r"\d+(\.\d+)?", "#", line)).strip()


def missing_lines(shown: str, output: str) -> list[str]:
    """The lines that the guide shows and the output lacks; a line that ends with … shows the beginning only."""
    seen = [normalize(line) for line in output.splitlines()]
    missing = []
    for line in filter(None, map(str.rstrip, shown.splitlines())):
        start = normalize(line.removesuffix("…"))
        found = any(each.startswith(start) for each in seen) if line.endswith("…") else start in seen
        if not found:
            missing.append(line)
    return missing
