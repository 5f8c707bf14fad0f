"""How long training steps take."""

from __future__ import annotations

import time
from typing import Any

import jax

__all__ = ["Clock"]


class Clock:
    """How long steps take; unless :meth:`start` says so the first, which compiles, does not count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.steps = 0
        self.done = 0
        self.began: float | None = None

    def start(self) -> None:
        """Count from now on, the first step too."""
        self.began = time.perf_counter() if self.began is None else self.began

    def step(self, seen: Any, steps: int = 1) -> None:
        """Note that steps were called; ``seen``: what they give."""
        if self.began is None:
            jax.block_until_ready(seen)
            self.start()
        else:
            self.steps += steps

    def read(self, seen: Any, flying: int = 0) -> None:
        """Note the time once all that was called is done, but for the newest steps, ``flying`` of them."""
        jax.block_until_ready(seen)
        assert self.began is not None  # a step was called
        self.done = max(self.steps - flying, 0)
        self.seconds = time.perf_counter() - self.began

    @property
    def rate(self) -> float:
        """Steps a second; 0 before there are two."""
        return self.done / self.seconds if self.seconds else 0.0
