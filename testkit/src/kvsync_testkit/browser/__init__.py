"""Opens pages in a headless Chromium and judges how they look, so that tests see what a reader sees.

- `driving`: the browser, and a page at one width in light or dark, cut off from the network
- `looking`: what is wrong with an open page: overflow, text over text, series of one colour, accessibility
- `finding`: the Chromium of this machine

The fixture `browser` of the plugin gives the tests of a module one browser, and skips them if the machine has none. A
module with tests that run an event loop uses `start_browser` instead.
"""

from kvsync_testkit.browser.driving import LOOKS, Browser, Look, OpenPage, open_browser
from kvsync_testkit.browser.finding import find_chromium

__all__ = ["LOOKS", "Browser", "Look", "OpenPage", "find_chromium", "open_browser"]
