"""Connections from inside a network namespace. The calling thread is moved for good, so each call has a thread."""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")


def enter(namespace: str) -> None:
    """Move the calling thread into the namespace with this file, for good; an empty name changes nothing.

    Raises:
        OSError: the file does not exist, or the kernel refuses.
    """
    if not namespace:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(namespace).open() as file:
        if libc.setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def call_inside(namespace: str, function: Callable[[], _T]) -> _T:
    """Call a function in a thread of its own inside the namespace, and return its result."""

    def run() -> _T:
        enter(namespace)
        return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()
