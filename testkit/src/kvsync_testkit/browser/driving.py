"""The browser: one process, and pages in contexts of their own that cannot reach anything but the page's own origin.

Playwright drives the browser. Its synchronous interface occupies the thread's event loop while a browser is open, which
is why the fixture closes the browser at the end of each test module.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kvsync_testkit.browser.finding import find_chromium
from kvsync_testkit.browser.looking import judge

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Process
    from playwright.sync_api import Page, Route

PHONE = 600
"""Narrower viewports, in CSS pixels, behave as a phone does: they honour the page's `viewport` element."""
LOAD_MS = 60_000
"""Generous, because a loaded machine may take long to start a renderer."""
FLAGS = (
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.*",
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is looked at: the width of the window in CSS pixels, and the colour scheme that the reader prefers."""

    width: int = 1280
    dark: bool = False

    def __str__(self) -> str:
        """Return a name for tests and files, such as `390-dark`."""
        return f"{self.width}-{'dark' if self.dark else 'light'}"


LOOKS = tuple(Look(width, dark) for width in (1280, 390) for dark in (False, True))
"""The looks in which every page is tested."""


class OpenPage:
    """A page that is open in one look. `dom` is Playwright's page, for tests that click and read."""

    def __init__(self, dom: "Page", look: Look, origin: str) -> None:
        self.dom = dom
        self.look = look
        self._origin = origin
        self._complaints: list[str] = []
        dom.route("**/*", self._admit)
        dom.on("console", lambda said: self._complain("console", said.text, said.type in ("error", "warning")))
        dom.on("pageerror", lambda error: self._complain("uncaught error", str(error)))
        dom.on("requestfailed", lambda request: self._complain("failed request", request.url))
        dom.on("websocket", lambda socket: self._complain("web socket", socket.url, not self._is_own(socket.url)))

    def problems(self) -> list[str]:
        """Return what the browser complained about so far, and what is wrong with the page as it stands now."""
        return [*self._complaints, *judge(self.dom, self.look.width)]

    def save(self, path: Path, *, whole: bool = True) -> None:
        """Save a picture as PNG: of the whole page, or of what the window shows of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.dom.screenshot(path=path, full_page=whole, animations="disabled")

    def _is_own(self, url: str) -> bool:
        return url.startswith(("data:", "blob:")) or origin_of(url) == self._origin

    def _admit(self, route: "Route") -> None:
        if self._is_own(route.request.url):
            route.continue_()
        else:
            self._complain("request to another origin", route.request.url)
            route.abort()

    def _complain(self, what: str, detail: str, wrong: bool = True) -> None:
        if wrong:
            self._complaints.append(f"{what}: {detail}")


def origin_of(url: str) -> str:
    """Return scheme, host and port; for a file the whole path, so that a page may not read files beside it."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return f"file://{parts.path}"
    return f"{parts.scheme.replace('ws', 'http')}://{parts.netloc}"


class Browser:
    """A running Chromium."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    @contextlib.contextmanager
    def open(self, where: Path | str, look: Look | None = None) -> Iterator[OpenPage]:
        """Open a file or an address, wait until it has loaded, and close it at the end of the block.

        The page may load only what its own origin serves. Every other request is refused, and is a problem of the page.
        """
        look = look or Look()
        url = where.resolve().as_uri() if isinstance(where, Path) else where
        phone = look.width < PHONE
        context = self._process.new_context(
            viewport={"width": look.width, "height": 844 if phone else 800},
            is_mobile=phone,
            has_touch=phone,
            color_scheme="dark" if look.dark else "light",
            reduced_motion="reduce",
            locale="en-GB",
            timezone_id="UTC",
        )
        try:
            context.set_default_timeout(LOAD_MS)
            page = OpenPage(context.new_page(), look, origin_of(url))
            page.dom.goto(url, wait_until="load")
            yield page
        finally:
            context.close()


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium without a window for the duration of the block. It runs without a sandbox, so root may start it.

    Raises:
        BrowserUnavailableError: this machine has no Chromium.
    """
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=path, args=list(FLAGS), timeout=LOAD_MS)
        try:
            yield Browser(process)
        finally:
            process.close()
