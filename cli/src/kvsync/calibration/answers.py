"""Measured answers: when each was asked for, and when its tokens came. Logs and probes both give these."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvsync.errors import UsageProblemError


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed answer; times are seconds."""

    start_s: float
    """When it was asked for, since any fixed moment."""
    input_tokens: int
    ttft_s: float
    """From asking to the first token."""
    gaps_s: tuple[float, ...]
    """Between successive tokens."""

    @property
    def first_s(self) -> float:
        """When the first token came."""
        return self.start_s + self.ttft_s


class _BenchResult(msgspec.Struct):
    input_lens: list[int]
    ttfts: list[float]
    itls: list[list[float]]
    start_times: list[float] | None = None
    errors: list[str] | None = None
    max_concurrency: int | None = None


def read_bench(path: Path) -> list[Answer]:
    """The answers in a result file of `vllm bench serve --save-result --save-detailed`.

    Raises UsageProblemError, which says what is missing.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=_BenchResult)
    except OSError as error:
        raise UsageProblemError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    except msgspec.MsgspecError as error:
        raise UsageProblemError(
            f"{path}: not a detailed result of vllm bench serve (--save-result --save-detailed): {error}"
        ) from None
    counts = {len(result.input_lens), len(result.ttfts), len(result.itls)}
    if len(counts) != 1:
        raise UsageProblemError(f"{path}: input_lens, ttfts and itls have different lengths")
    starts = result.start_times if result.start_times is not None else _starts_in_turn(path, result)
    failed = result.errors or [""] * len(result.ttfts)
    rows = zip(starts, result.input_lens, result.ttfts, result.itls, failed, strict=True)
    return [
        Answer(start, tokens, ttft, tuple(gaps))
        for start, tokens, ttft, gaps, error in rows
        if not error and ttft > 0 and tokens > 0
    ]


def _starts_in_turn(path: Path, result: _BenchResult) -> Sequence[float]:
    """Start times that the file does not have, if requests were sent one after the other."""
    if result.max_concurrency != 1:
        raise UsageProblemError(
            f"{path}: has no start_times, so it does not show which requests ran together; "
            "use a newer vLLM, or --max-concurrency 1"
        )
    starts, now = [], 0.0
    for ttft, gaps in zip(result.ttfts, result.itls, strict=True):
        starts.append(now)
        now += ttft + sum(gaps)
    return starts
