"""The browser harness: a clean page has no problems, and each kind of defect is found in a page that has it."""

import http.server
import struct
import threading

import pytest

from kvsync_testkit.browser import LOOKS, Look, find_chromium
from kvsync_testkit.browser.driving import origin_of
from kvsync_testkit.errors import BrowserUnavailableError

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A page</title>
<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width,initial-scale=1">
<style>:root{color-scheme:light dark} %(style)s</style></head>
<body><main><h1>A page</h1>%(body)s</main></body></html>"""
CHART = """<figure aria-label="hits"><svg width="200" height="60" role="img" aria-label="hits">%s</svg></figure>"""


@pytest.fixture
def write(tmp_path):
    """A function that writes a page and returns its path."""

    def make(body="", style=""):
        path = tmp_path / "page.html"
        path.write_text(PAGE % {"body": body, "style": style})
        return path

    return make


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_clean_page_has_no_problems_and_its_picture_has_the_width(browser, write, tmp_path, look):
    line = '<text x="5" y="20" fill="CanvasText">10</text><path d="M0 40H90" stroke="#8080ff" data-series="kv"/>'
    path = write("<p>Some text.</p>" + CHART % line)
    with browser.open(path, look) as page:
        assert page.problems() == []
        assert page.dom.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is look.dark
        page.save(tmp_path / "out" / "page.png")
    picture = (tmp_path / "out" / "page.png").read_bytes()
    assert struct.unpack(">I", picture[16:20])[0] == look.width


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('<div style="width:2000px">wide</div>', "the page is 20"),
        ("<script>console.error('broken')</script>", "console: broken"),
        ("<script>undefined.x</script>", "uncaught error:"),
        ('<img alt="" src="https://example.org/x.png">', "request to another origin: https://example.org/x.png"),
        ('<p style="color:#888;background:#999">pale</p>', "accessibility, color-contrast"),
        ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "accessibility, image-alt"),
        (CHART % '<text x="5" y="20">one</text><text x="8" y="22">two</text>', '"one" lies over <text> "two"'),
        (CHART % '<text x="5" y="20" fill="#ddd">pale</text>', '"pale" has a contrast of 1.'),
        (
            CHART % '<path d="M0 9H9" stroke="#339" data-series="a"/><path d="M0 19H9" stroke="#339" data-series="b"/>',
            "hits: series b looks like a",
        ),
        (CHART % '<path d="M0 9H9" stroke="#eee" data-series="a"/>', "hits: series a has a contrast of 1."),
    ],
    ids=lambda value: value if value[0] != "<" else "",
)
def test_each_defect_is_found(browser, write, body, says):
    with browser.open(write(body)) as page:
        assert any(says in problem for problem in page.problems()), page.problems()


def test_a_table_that_scrolls_in_its_own_box_is_not_an_overflow(browser, write):
    wide = '<div style="overflow-x:auto" tabindex="0"><div style="width:900px">wide</div></div>'
    with browser.open(write(wide), Look(390)) as page:
        assert page.problems() == []


def test_a_page_without_a_viewport_is_too_wide_on_a_phone(browser, tmp_path):
    path = tmp_path / "page.html"
    path.write_text('<!doctype html><html lang="en"><title>x</title><main><h1>x</h1></main>')
    with browser.open(path, Look(390)) as page:
        assert any("pixels wide in a window of 390" in problem for problem in page.problems())


def test_a_served_page_reaches_its_own_origin_only(browser, tmp_path):
    (tmp_path / "own.js").write_text("document.title = 'loaded'")
    script = '<script src="own.js"></script><script src="http://127.0.0.1:9/other.js"></script>'
    (tmp_path / "index.html").write_text(PAGE % {"body": script, "style": ""})
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: handler(*a, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with browser.open(f"http://127.0.0.1:{server.server_port}/index.html") as page:
                assert page.dom.title() == "loaded"
                assert "request to another origin: http://127.0.0.1:9/other.js" in page.problems()
        finally:
            server.shutdown()


def test_a_file_may_not_read_the_files_beside_it():
    assert origin_of("file:///a/b.html#top") == "file:///a/b.html" != origin_of("file:///a/c.html")
    assert origin_of("ws://h:1/x") == origin_of("http://h:1/y")


def test_a_missing_browser_is_named(monkeypatch):
    monkeypatch.setenv("KVSYNC_CHROMIUM", "no-such-browser")
    with pytest.raises(BrowserUnavailableError, match="KVSYNC_CHROMIUM=no-such-browser is not a program"):
        find_chromium()
