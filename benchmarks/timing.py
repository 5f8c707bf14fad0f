"""Ratios of two functions' times, taken in turns so that a machine whose speed drifts does not favour one of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

__all__ = ["WAVERS", "Ratio", "Spread", "Work", "interleaved", "spread", "timed"]

Work = Callable[[], Any]

WAVERS = 0.15
"""How far the halves of a row's rounds may lie apart before the row says nothing."""


class Spread(NamedTuple):
    """Rounds in a few numbers.

    Attributes:
        median, least, largest: of the rounds.
        halves_apart: medians of the earlier and of the later half, how far apart, as a share of the smaller.
    """

    median: float
    least: float
    largest: float
    halves_apart: float

    @property
    def wavers(self) -> bool:
        """Whether the rounds do not agree on a number: a fault of the benchmark or of the machine."""
        return self.halves_apart > WAVERS


class Ratio(NamedTuple):
    """Median seconds of both functions, and the rounds' own ratios with their median."""

    ratio: float
    ours_seconds: float
    plain_seconds: float
    rounds: tuple[float, ...]


def spread(rounds: Sequence[float]) -> Spread:
    """What rounds come to; a middle one of an odd number is in neither half."""
    half = len(rounds) // 2
    parts = sorted(map(statistics.median, (rounds[:half], rounds[-half:]))) if half else [1.0, 1.0]
    apart = parts[1] / parts[0] - 1 if parts[0] > 0 else 0.0
    return Spread(statistics.median(rounds), min(rounds), max(rounds), apart)


def interleaved(ours: Work, plain: Work, *, seconds: float = 4.0, rounds: int = 15) -> Ratio:
    """Time ``ours`` and ``plain`` alternately; each is called once before, to compile.

    A round calls one, then the other, each often enough to take some milliseconds; the order alternates.
    """
    for work in (ours, plain, ours, plain):
        jax.block_until_ready(work())
    single = [timed(work) for work in (ours, plain)]
    share = seconds / (2 * rounds)
    calls = [max(1, round(share / max(s, 1e-7))) for s in single]
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            times[which].append(timed((ours, plain)[which], calls[which]))
    ratios = tuple(a / b for a, b in zip(*times, strict=True))
    return Ratio(statistics.median(ratios), statistics.median(times[0]), statistics.median(times[1]), ratios)


def timed(work: Work, calls: int = 1) -> float:
    """Seconds of one call, over ``calls`` of them."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(work())
    return (time.perf_counter() - start) / calls
