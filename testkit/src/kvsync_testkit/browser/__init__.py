"""Opens pages in a headless Chromium and judges how they look, so that tests see what a reader sees.

- `driving`: the browser, and a page at one width in light or dark, cut off from the network
- `looking`: what is wrong with an open page: overflow, text over text, series of one colour, accessibility
- `finding`: the Chromium of this machine

The fixture `browser` of the plugin gives a test the browser, or skips the test if the machine has none. Tests that use
it are synchronous functions.
"""

from kvsync_testkit.browser.driving import LOOKS, Browser, Look, OpenPage, open_browser
from kvsync_testkit.browser.finding import find_chromium

__all__ = ["LOOKS", "Browser", "Look", "OpenPage", "find_chromium", "open_browser"]
