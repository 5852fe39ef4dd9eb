"""From answers to steps whose load is known: prefills that ran alone, and decode steps without a prefill among them.

A client often sees several tokens at once, because a server may send them together. Decode steps are therefore not
measured from one token to the next, but over spans of time in which the same answers were decoded and none was waiting
for its first token: the length of the span divided by the tokens that each answer got in it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from statistics import fmean

from kvsync.calibration.answers import Answer

MIN_SPAN_TOKENS = 8
"""Tokens per answer in a span: the uncertainty of one token at its ends is then an eighth."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The duration of one step, and what the engine did in it."""

    prefill_tokens: int
    decode_seqs: int
    kv_tokens: int
    """Context that the decoding sequences attend to."""
    seconds: float


def decode_samples(answers: Sequence[Answer]) -> list[Sample]:
    """One sample per span in which the same answers were decoded and none was waiting for its first token."""
    times = [[answer.first_s, *(answer.first_s + at for at in accumulate(answer.gaps_s))] for answer in answers]
    samples = []
    for begin, end, active in _spans(answers, times):
        counts = [bisect_right(times[one], end) - bisect_right(times[one], begin) for one in active]
        steps = fmean(counts)
        if steps < MIN_SPAN_TOKENS:
            continue
        context = sum(
            answers[one].input_tokens + bisect_right(times[one], begin) + count // 2
            for one, count in zip(active, counts, strict=True)
        )
        samples.append(Sample(0, len(active), context, (end - begin) / steps))
    return samples


def _spans(answers: Sequence[Answer], times: Sequence[Sequence[float]]) -> Iterator[tuple[float, float, list[int]]]:
    """(begin, end, answers that are decoded) of every span without a prefill."""
    edges: list[tuple[float, int, int]] = []
    for number, answer in enumerate(answers):
        edges += [(answer.start_s, 0, number), (answer.first_s, 1, number), (times[number][-1], 2, number)]
    edges.sort()
    waiting = 0
    decoding: dict[int, None] = {}
    for (begin, kind, number), (end, _, _) in pairwise(edges):
        if kind == 0:
            waiting += 1
        elif kind == 1:
            waiting -= 1
            decoding[number] = None
        else:
            decoding.pop(number, None)
        if decoding and not waiting and end > begin:
            yield begin, end, list(decoding)


def prefill_samples(answers: Sequence[Answer]) -> list[Sample]:
    """One sample per answer whose prefill ran beside no other, with what was decoded at the same time."""
    waits = sorted((answer.start_s, answer.first_s) for answer in answers)
    starts = [start for start, _ in waits]
    latest = list(accumulate((first for _, first in waits), max, initial=float("-inf")))
    firsts = sorted(answer.first_s for answer in answers)
    ends = sorted(answer.first_s + sum(answer.gaps_s) for answer in answers)
    mean_context = round(fmean(answer.input_tokens for answer in answers)) if answers else 0
    samples = []
    for answer in answers:
        place = bisect_right(starts, answer.start_s)
        earlier = latest[place - 1]
        follows = place < len(starts) and starts[place] < answer.first_s
        if earlier > answer.start_s or follows:
            continue
        middle = answer.start_s + answer.ttft_s / 2
        sequences = bisect_left(firsts, middle) - bisect_left(ends, middle)
        samples.append(Sample(answer.input_tokens, sequences, sequences * mean_context, answer.ttft_s))
    return samples
