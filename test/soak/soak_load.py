"""Requests through the router, for as long as a run lasts: prompts that share prefixes, from a few clients."""

import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator

from soak_processes import BLOCK_TOKENS, MODEL

TIMEOUT_S = 60.0
ROOTS = 40
"""Prefixes that prompts share. All of them together exceed the cache of one engine, so that blocks are evicted."""


def build_prompt(chance: random.Random) -> list[int]:
    """The tokens of a prompt: a shared prefix of 4 to 40 blocks, and up to 3 blocks of its own."""
    root = random.Random(f"root {chance.randrange(ROOTS)}")
    shared = [root.randrange(1000, 50_000) for _ in range(BLOCK_TOKENS * root.randint(4, 40))]
    return shared + [chance.randrange(1000, 50_000) for _ in range(chance.randint(0, 3 * BLOCK_TOKENS))]


class Load:
    """Clients that send one request after another. `quiet` pauses all of them; `outcomes` counts every request once."""

    def __init__(self, port: int, seed: int, clients: int = 3, pause_s: float = 0.05) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port = port
        self._pause_s = pause_s
        self._go = threading.Event()
        self._end = threading.Event()
        self._lock = threading.Condition()
        self._busy = 0
        self._threads = [
            threading.Thread(
                target=self._run, args=(random.Random(f"client {seed} {number}"),), name=f"client-{number}"
            )
            for number in range(clients)
        ]

    def __enter__(self) -> "Load":
        self._go.set()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._go.set()
        for thread in self._threads:
            thread.join()

    def pause(self) -> None:
        """Send no further request, and return when the last one has its answer."""
        self._go.clear()
        with self._lock:
            self._lock.wait_for(lambda: self._busy == 0, TIMEOUT_S)

    def resume(self) -> None:
        self._go.set()

    def _run(self, chance: random.Random) -> None:
        while not self._end.is_set():
            self._go.wait()
            with self._lock:
                self._busy += 1
            outcome = "not sent"
            try:
                if self._go.is_set() and not self._end.is_set():
                    outcome = self._send(build_prompt(chance), chance.randint(1, 24))
            finally:
                with self._lock:
                    self._busy -= 1
                    self.outcomes[outcome] += outcome != "not sent"
                    self._lock.notify_all()
            self._end.wait(self._pause_s)

    def _send(self, prompt: list[int], answer_tokens: int) -> str:
        """Send one request and return its outcome: the status, or the name of the error."""
        body = json.dumps({"model": MODEL, "prompt": prompt, "max_tokens": answer_tokens, "ignore_eos": True})
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()
        return str(response.status)


def rejected(outcomes: Counter[str]) -> Iterator[str]:
    """What is wrong with the outcomes.

    A request may fail because its engine was killed or stopped while it answered: the router then cuts the connection,
    or reports 502 or 503. Any other outcome is a defect, and so is a run in which hardly any request succeeded.
    """
    allowed = {"200", "502", "503", "IncompleteRead", "RemoteDisconnected", "ConnectionResetError", "TimeoutError"}
    for outcome, count in sorted(outcomes.items()):
        if outcome not in allowed and count:
            yield f"{count} requests ended with {outcome}"
    total = sum(outcomes.values())
    if outcomes["200"] < 0.95 * total or not total:
        yield f"only {outcomes['200']} of {total} requests succeeded"
