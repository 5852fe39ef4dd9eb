"""The program of the `helm test` pod: every given URL must answer with status 200 within 100 seconds.

    python -m kvsync_operator.smoke URL...

It uses only the standard library, so that the check does not depend on what it checks.
"""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

_WITHIN_S = 100.0
"""Less than the `activeDeadlineSeconds` of the pod, so that the pod reports the reason before it is killed."""
_EVERY_S = 1.0


def probe(url: str) -> str | None:
    """Request `url` once and return what is wrong, None if it answers with status 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  (the addresses come from the chart)
            return None if response.status == 200 else f"answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, ValueError) as error:
        return str(error)


def wait_for(
    url: str, check: Callable[[str], str | None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> str | None:
    """Call `check` every second until it returns None or the time is over, and return its last result."""
    deadline = clock() + _WITHIN_S
    while (problem := check(url)) is not None:
        if clock() >= deadline:
            return problem
        sleep(_EVERY_S)
    return None


def main(urls: list[str]) -> int:
    """Check all URLs and return the exit code: 0 if all answer, 1 if one does not, 2 for wrong usage."""
    if not urls:
        print("usage: python -m kvsync_operator.smoke URL...", file=sys.stderr)
        return 2
    for url in urls:
        problem = wait_for(url, probe, time.monotonic, time.sleep)
        print(f"{url}: {problem or 'ok'}")
        if problem is not None:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
