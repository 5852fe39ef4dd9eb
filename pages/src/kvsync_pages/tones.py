"""The colours of pages, as names of CSS classes. `templates/style.css` defines each for light and for dark.

A series that appears in several charts keeps its tone. Tones that mean something (`good`, `warn`, `bad`, `quiet`) are
not used for series.
"""

from collections.abc import Mapping

INK = "ink"
QUIET = "quiet"
GOOD = "good"
WARN = "warn"
BAD = "bad"

SERIES = 8
"""The number of colours for series. A ninth series gets the first colour and a dashed line, and so on."""
DASHES = 4

ROUND_ROBIN, KV, KV_KILLED, LEAST_REQUEST, RANDOM = "s3", "s1", "s2", "s4", "s5"
POLICIES: Mapping[str, str] = {
    "round_robin": ROUND_ROBIN,
    "kv": KV,
    "least_request": LEAST_REQUEST,
    "random": RANDOM,
}


def tone_of(number: int) -> str:
    """Return the tone of series `number`, counted from 0."""
    return f"s{number % SERIES + 1}"


def dash_of(number: int) -> int:
    """Return the dash pattern of series `number`: 0 is a solid line."""
    return number // SERIES % DASHES
