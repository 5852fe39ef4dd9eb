"""The situations of the troubleshooting guide, each produced on purpose with local processes."""

import signal
from collections.abc import Callable

from guides_lab import PROMPT, Lab


def no_events(lab: Lab) -> None:
    lab.start_engine(enable_kv_cache_events=False)
    lab.start_index()
    lab.wait_state("stale")


def replay_unreachable(lab: Lab) -> None:
    lab.start_engine()
    lab.ask(PROMPT, 3)
    lab.start_index(replay_endpoint="tcp://127.0.0.1:9")
    lab.wait_state("live")


def buffer_too_small(lab: Lab) -> None:
    lab.start_engine(buffer_steps=2)
    lab.ask("before the index ", 8)
    lab.start_index()
    lab.wait_state("live")


def stopped_engine(lab: Lab) -> None:
    lab.start()
    lab.engine.process.send_signal(signal.SIGSTOP)
    lab.wait_state("stale")


def ended_engine(lab: Lab) -> None:
    lab.start()
    lab.engine.process.kill()
    lab.engine.process.wait()
    lab.wait_state("stale")


def lose_batches(lab: Lab) -> None:
    """Lose two numbered batches on the way, and let the index find out."""
    lab.inject(kind="drop", limit=2)
    lab.ask("gap ", 4)
    lab.wait_blocks()


def gap(lab: Lab) -> None:
    lab.start()
    lose_batches(lab)


def gap_without_replay(lab: Lab) -> None:
    lab.start_engine()
    lab.start_index(replay_endpoint=None)
    lab.wait_state("live")
    lab.ask(PROMPT, 3)
    lab.wait_blocks()
    lose_batches(lab)


def damaged_events(lab: Lab) -> None:
    lab.start()
    lab.inject(kind="truncate", size=9, in_replay=True)
    lab.ask("damaged ", 4)
    lab.wait_state("quarantined")


def unnoticed_loss(lab: Lab) -> None:
    lab.start()
    lab.inject(kind="drop_unnumbered", limit=1)
    lab.ask("lost ", 2)
    lab.wait_blocks()


def restarted_engine(lab: Lab) -> None:
    lab.start()
    lab.inject(kind="restart", blocks="lost")
    lab.wait_restart()


def stopped_index(lab: Lab) -> None:
    lab.start()
    lab.index.process.send_signal(signal.SIGSTOP)


SITUATIONS: dict[str, Callable[[Lab], None]] = {
    "usual": Lab.start,
    "no events": no_events,
    "replay unreachable": replay_unreachable,
    "buffer too small": buffer_too_small,
    "stopped engine": stopped_engine,
    "ended engine": ended_engine,
    "gap": gap,
    "gap without replay": gap_without_replay,
    "damaged events": damaged_events,
    "unnoticed loss": unnoticed_loss,
    "restarted engine": restarted_engine,
    "stopped index": stopped_index,
}
"""By the name in the guide, without what follows a slash."""
