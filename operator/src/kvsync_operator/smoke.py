"""The pod of `helm test`: every URL given must answer 200 within two minutes.

    python -m kvsync_operator.smoke URL...

Standard library only, so that the check itself depends on nothing it checks.
"""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

__all__ = ["main", "wait_for"]

_WITHIN_S = 100.0
_EVERY_S = 1.0


def probe(url: str) -> str | None:
    """None when `url` answers 200, else what happened."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310  (addresses come from our own chart)
            return None if response.status == 200 else f"answered {response.status}"
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, ValueError) as error:
        return str(error)


def wait_for(
    url: str, check: Callable[[str], str | None], clock: Callable[[], float], sleep: Callable[[float], None]
) -> str | None:
    """Ask until it is well or the time is over; the last complaint, None when well."""
    deadline = clock() + _WITHIN_S
    while (complaint := check(url)) is not None:
        if clock() >= deadline:
            return complaint
        sleep(_EVERY_S)
    return None


def main(urls: list[str]) -> int:
    """0 when all are well, 1 when one is not, 2 for a wrong call."""
    if not urls:
        print("usage: python -m kvsync_operator.smoke URL...", file=sys.stderr)
        return 2
    for url in urls:
        complaint = wait_for(url, probe, time.monotonic, time.sleep)
        print(f"{url}: {complaint or 'ok'}")
        if complaint is not None:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
