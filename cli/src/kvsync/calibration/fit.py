"""Fits the coefficients of `FormulaLatency` to samples: the smallest sum of relative errors, no coefficient below zero.

There are at most three coefficients at a time, so the best non-negative solution is found by trying every subset of
them: the unconstrained solution of the right subset has no negative coefficient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from kvsync.calibration.samples import Sample
from kvsync.errors import UsageProblemError
from kvsync_workload.percentiles import percentile

HELD_BACK = 5
"""Every fifth sample is not fitted: the error is measured on these."""
MIN_SAMPLES = 10
ROUNDS = 20
SMALLEST_ERROR = 0.002
"""Relative errors below this count alike."""
US = 1e6

Row = tuple[tuple[float, ...], float]
"""The factors of the coefficients, and the measured time in microseconds."""


@dataclass(frozen=True, slots=True)
class Error:
    """Relative errors on the samples that were held back."""

    samples: int
    median: float
    p90: float


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients by name in microseconds, with the errors of the two kinds of steps."""

    coefficients: dict[str, float]
    prefill: Error
    decode: Error
    fitted_samples: int


def fit_latency(prefills: Sequence[Sample], decodes: Sequence[Sample]) -> Fit:
    """Fit decode steps first, then prefills, whose steps may also decode. Raises UsageProblemError for too few."""
    for name, samples in (("prefills that ran alone", prefills), ("decode steps without a prefill", decodes)):
        if len(samples) < MIN_SAMPLES:
            raise UsageProblemError(f"{len(samples)} {name}: at least {MIN_SAMPLES} are needed to fit the model")

    def decode_factors(sample: Sample) -> tuple[float, ...]:
        return (1.0, float(sample.decode_seqs), float(sample.kv_tokens))

    decode_fit, decode_test = _split([(decode_factors(sample), sample.seconds * US) for sample in decodes])
    decode = solve(decode_fit)

    def prefill_row(sample: Sample) -> Row:
        tokens = float(sample.prefill_tokens)
        beside = _dot(decode, decode_factors(sample)) if sample.decode_seqs else 0.0
        return (1.0, tokens, tokens * tokens), max(sample.seconds * US - beside, 1.0)

    prefill_fit, prefill_test = _split([prefill_row(sample) for sample in prefills])
    prefill = solve(prefill_fit)
    names = ("prefill_us", "prefill_token_us", "prefill_token2_us", "decode_us", "decode_seq_us", "kv_token_us")
    return Fit(
        {name: float(f"{value:.6g}") for name, value in zip(names, (*prefill, *decode), strict=True)},
        _error(prefill, prefill_test),
        _error(decode, decode_test),
        len(prefill_fit) + len(decode_fit),
    )


def _split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows to fit and rows held back; those are spread over the range of times."""
    ordered = sorted(rows, key=lambda row: row[1])
    test = [row for place, row in enumerate(ordered) if place % HELD_BACK == HELD_BACK // 2]
    return [row for place, row in enumerate(ordered) if place % HELD_BACK != HELD_BACK // 2], test


def _error(coefficients: Sequence[float], rows: Sequence[Row]) -> Error:
    errors = [abs(_dot(coefficients, factors) - time) / time for factors, time in rows]
    return Error(len(errors), round(percentile(errors, 50) or 0.0, 4), round(percentile(errors, 90) or 0.0, 4))


def solve(rows: Sequence[Row]) -> tuple[float, ...]:
    """The coefficients from 0 up that minimise the sum of absolute relative errors.

    Least squares are repeated with weights that take the square away (iteratively reweighted least squares), because a
    few measurements are always disturbed and must not count by their square.
    """
    relative = [(tuple(factor / time for factor in factors), 1.0) for factors, time in rows]
    found = _solve_squares(relative)
    for _ in range(ROUNDS):
        weights = [max(abs(_dot(found, factors) - target), SMALLEST_ERROR) ** -0.5 for factors, target in relative]
        weighted = [
            (tuple(factor * weight for factor in factors), target * weight)
            for (factors, target), weight in zip(relative, weights, strict=True)
        ]
        found = _solve_squares(weighted)
    return found


def _solve_squares(rows: Sequence[Row]) -> tuple[float, ...]:
    """The coefficients from 0 up that minimise the sum of squares."""
    count = len(rows[0][0])
    best: tuple[float, tuple[float, ...]] | None = None
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            found = _least_squares(rows, chosen)
            if found is None or min(found) < 0:
                continue
            values = [0.0] * count
            for place, value in zip(chosen, found, strict=True):
                values[place] = value
            residual = sum((_dot(values, factors) - target) ** 2 for factors, target in rows)
            if best is None or residual < best[0]:
                best = residual, tuple(values)
    assert best is not None  # times are positive, so a single coefficient always fits
    return best[1]


def _least_squares(rows: Sequence[Row], chosen: Sequence[int]) -> list[float] | None:
    """The solution of the normal equations; None if the factors depend on each other."""
    scales = [max(abs(factors[place]) for factors, _ in rows) or 1.0 for place in chosen]
    columns = [[factors[place] / scale for factors, _ in rows] for place, scale in zip(chosen, scales, strict=True)]
    matrix = [[_dot(one, other) for other in columns] for one in columns]
    right = [_dot(column, [target for _, target in rows]) for column in columns]
    solution = _eliminate(matrix, right)
    return None if solution is None else [value / scale for value, scale in zip(solution, scales, strict=True)]


def _eliminate(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    size = len(right)
    for pivot in range(size):
        row = max(range(pivot, size), key=lambda at, pivot=pivot: abs(matrix[at][pivot]))  # type: ignore[misc]
        if abs(matrix[row][pivot]) < 1e-12 * max(abs(value) for value in matrix[row]) + 1e-300:
            return None
        matrix[pivot], matrix[row] = matrix[row], matrix[pivot]
        right[pivot], right[row] = right[row], right[pivot]
        for below in range(pivot + 1, size):
            factor = matrix[below][pivot] / matrix[pivot][pivot]
            matrix[below] = [a - factor * b for a, b in zip(matrix[below], matrix[pivot], strict=True)]
            right[below] -= factor * right[pivot]
    solution = [0.0] * size
    for at in range(size - 1, -1, -1):
        solution[at] = (right[at] - _dot(matrix[at][at + 1 :], solution[at + 1 :])) / matrix[at][at]
    return solution


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
