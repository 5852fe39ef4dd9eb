"""The entry point of `kvsync-mockpod`. Ctrl-C ends the program with one line, also during imports.

This module imports nothing else at its top, since an interrupted import would end in a traceback. A SIGINT that the
program was started to ignore, as in the background of a shell script, stays ignored.
"""

import os
import signal
from typing import NoReturn

INTERRUPTED = 130


def main() -> None:
    """Import the program and run it with the arguments of this process."""
    ignored = signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    if not ignored:
        signal.signal(signal.SIGINT, _leave)
    from kvsync_mockpod.main import main as run

    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run()
    except KeyboardInterrupt:
        _leave()


def _leave(*_: object) -> NoReturn:
    os.write(2, b"kvsync-mockpod: interrupted\n")
    os._exit(INTERRUPTED)
