"""Shows the progress of a demo: a live view on a terminal, and a line every few seconds elsewhere."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kvsync.demo.phase import Progress

REFRESH_S = 0.25
PLAIN_LINE_S = 5.0
SHOWN_MOMENTS = 6
STATE_STYLES = {"live": "green", "quarantined": "red", "stale": "red", "restart": "yellow"}


class View:
    """Shows each phase while it runs."""

    def __init__(self, console: Console, ideal_hits: tuple[int, ...]) -> None:
        self._console = console
        self._ideal_hits = ideal_hits

    @contextlib.asynccontextmanager
    async def showing(self, progress: Progress) -> AsyncIterator[None]:
        """Show a phase during the block, and leave its final state on the screen."""
        if self._console.is_terminal:
            with Live(console=self._console, refresh_per_second=4, transient=False) as live:
                async with _repeating(lambda: live.update(self._render(progress)), REFRESH_S):
                    yield
                live.update(self._render(progress))
        else:
            shown = 0

            def plain() -> None:
                nonlocal shown
                for at_s, text in progress.moments[shown:]:
                    self._console.print(f"  {at_s:6.1f} s  {text}", highlight=False)
                shown = len(progress.moments)

            async with _repeating(plain, REFRESH_S), _repeating(lambda: self._plain(progress), PLAIN_LINE_S):
                yield
            plain()
            self._plain(progress)

    def _numbers(self, progress: Progress) -> tuple[int, float, float]:
        done = progress.outcomes
        prompt = sum(outcome.prompt_tokens for outcome in done if outcome.ok)
        hit = sum(outcome.cached_tokens for outcome in done if outcome.ok)
        ideal = sum(self._ideal_hits[outcome.number] for outcome in done if outcome.ok)
        return len(done), hit / max(prompt, 1), ideal / max(prompt, 1)

    def _plain(self, progress: Progress) -> None:
        done, ratio, ideal = self._numbers(progress)
        self._console.print(
            f"{progress.leg.name}: {progress.stage}, {done}/{progress.total} requests, "
            f"hit ratio {ratio:.1%} (ideal {ideal:.1%})",
            highlight=False,
        )

    def _render(self, progress: Progress) -> Group:
        done, ratio, ideal = self._numbers(progress)
        head = Text.assemble(
            (f"{progress.leg.name:<12}", "bold"),
            f" {progress.stage:<18} {done:>5}/{progress.total} requests   hit ratio ",
            (f"{ratio:6.1%}", "bold cyan"),
            f"   ideal {ideal:6.1%}",
        )
        parts: list[Text | ProgressBar | Table] = [head, ProgressBar(progress.total, done, width=78)]
        if progress.watcher is not None and progress.watcher.samples:
            parts.append(_publishers(progress))
        parts.extend(Text(f"{at_s:7.1f} s  {text}", "dim") for at_s, text in progress.moments[-SHOWN_MOMENTS:])
        return Group(*parts)


def _publishers(progress: Progress) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for name in ("publisher", "state"):
        table.add_column(name)
    for name in ("blocks", "seq", "lag", "age", "gaps", "resyncs"):
        table.add_column(name, justify="right")
    rows = progress.watcher.samples[-1].publishers if progress.watcher is not None else ()
    for row in rows:
        table.add_row(
            row.name,
            Text(row.state, STATE_STYLES.get(row.state, "yellow")),
            f"{row.blocks:,}",
            "-" if row.last_seq is None else str(row.last_seq),
            "-" if row.lag is None else f"{row.lag:g}",
            "-" if row.age_s is None else f"{row.age_s:.1f} s",
            str(row.gaps),
            str(row.resyncs),
        )
    return table


@contextlib.asynccontextmanager
async def _repeating(work: Callable[[], None], period_s: float) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(period_s)
            work()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
