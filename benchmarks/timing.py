"""Ratios of two functions' times, taken in turns so that a machine whose speed drifts does not favour one of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

__all__ = ["Ratio", "interleaved"]

Work = Callable[[], Any]


class Ratio(NamedTuple):
    """Median seconds of both functions, and the median of the rounds' own ratios."""

    ratio: float
    ours_seconds: float
    plain_seconds: float


def interleaved(ours: Work, plain: Work, *, seconds: float = 4.0, rounds: int = 15) -> Ratio:
    """Time ``ours`` and ``plain`` alternately; each is called once before, to compile.

    A round calls one, then the other, each often enough to take some milliseconds; the order alternates.
    """
    for work in (ours, plain, ours, plain):
        jax.block_until_ready(work())
    single = [_seconds(work, 1) for work in (ours, plain)]
    share = seconds / (2 * rounds)
    calls = [max(1, round(share / max(s, 1e-7))) for s in single]
    times: tuple[list[float], list[float]] = ([], [])
    for i in range(rounds):
        for which in (0, 1) if i % 2 else (1, 0):
            times[which].append(_seconds((ours, plain)[which], calls[which]))
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return Ratio(ratio, statistics.median(times[0]), statistics.median(times[1]))


def _seconds(work: Work, calls: int) -> float:
    """Seconds of one call, over ``calls`` of them."""
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(work())
    return (time.perf_counter() - start) / calls
