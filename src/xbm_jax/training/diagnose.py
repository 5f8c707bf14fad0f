"""What an engineer asks of a learned task: which columns count, and whether converters clip."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Tiles, clip_rate, read
from xbm_jax.masks import Method
from xbm_jax.models import Chip, forward
from xbm_jax.tasks import Task

__all__ = ["active_columns", "adc_clip_rates"]


def active_columns(chip: Chip, task: Task) -> dict[str, float]:
    """Share of each layer's columns whose gain is not zero (all of them where the method masks no columns)."""
    shares = {}
    for path, tiles in chip.tiles.items():
        rule = task.method.rule
        gain = None if rule is None or rule.rewrites_cells else rule.apply(tiles, task.trained["masks"][path])[1]
        shares[path] = 1.0 if gain is None else float(np.mean(np.asarray(gain) != 0))
    return shares


def adc_clip_rates(chip: Chip, task: Task, images: np.ndarray) -> dict[str, float]:
    """Share of each layer's conversions that clip on ``images``, under the task's masks and norms."""
    rates = _clip_rates(task.method, chip, task.trained, task.state or chip.stats, jnp.asarray(images))
    return {path: float(rate) for path, rate in rates.items()}


@partial(jax.jit, static_argnames="method")
def _clip_rates(method: Method, chip: Chip, trained: Any, stats: Any, images: jax.Array) -> dict[str, jax.Array]:
    seen: dict[str, jax.Array] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> jax.Array:
        seen[path] = clip_rate(tiles, x)
        return read(tiles, x, gain, key)

    # Read noise does not decide whether a converter clips; a fixed key keeps noisy devices readable.
    forward(chip, method, trained, stats, images, key=jax.random.key(0), layer_read=observe)
    return seen
