"""Takes the pictures of docs/images from the pages that were last written to out/. `make images` writes those first.

A page that does not exist is named and left out, so that its old picture stays.
"""

import sys
from pathlib import Path
from typing import NamedTuple

from kvsync_testkit.browser import Look, open_browser

ROOT = Path(__file__).resolve().parent.parent
DESKTOP, DARK, PHONE = Look(1280), Look(1280, dark=True), Look(390, dark=True)


class Picture(NamedTuple):
    """A picture of a page, from its top to the end of the element `until`."""

    name: str
    page: str
    look: Look
    until: str | None


PICTURES = (
    Picture("demo-report", "out/demo/report.html", DESKTOP, "section.card:nth-of-type(4)"),
    Picture("demo-report-phone", "out/demo/report.html", PHONE, "section.card figure"),
    Picture("replay-report", "out/replay/report.html", DARK, "section.card:nth-of-type(3)"),
)


def main() -> int:
    """Take every picture whose page exists; return 1 if a page has a problem."""
    faulty = False
    with open_browser() as browser:
        for picture in PICTURES:
            page = ROOT / picture.page
            if not page.exists():
                print(f"{picture.page} does not exist; {picture.name}.png is left as it is")
                continue
            with browser.open(page, picture.look) as opened:
                problems = opened.problems()
                opened.save(ROOT / "docs/images" / f"{picture.name}.png", until=picture.until)
            faulty = faulty or bool(problems)
            print(f"{picture.name}.png", *problems, sep="\n  ")
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
