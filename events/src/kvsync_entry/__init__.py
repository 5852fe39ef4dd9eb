"""How every program of kvsync begins: Ctrl-C ends it with one line instead of a traceback, also during imports.

The entry points import this package alone, and this package imports no more than it needs for that, since an
interrupted import would end in a traceback.
"""

import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

__all__ = ["INTERRUPTED", "run_program"]

INTERRUPTED = 130
"""The exit code after Ctrl-C."""


def run_program(name: str, module: str) -> NoReturn:
    """Import `module`, call its `main`, and exit with what it returns.

    A SIGINT that the process was started to ignore, as in the background of a shell script, stays ignored.
    """

    def leave(*_: object) -> NoReturn:
        os.write(2, f"{name}: interrupted\n".encode())
        os._exit(INTERRUPTED)

    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, leave)
    run = import_module(module).main
    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.exit(run())
    except KeyboardInterrupt:
        leave()
