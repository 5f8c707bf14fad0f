"""Where a number that is none came from: one forward pass once more, layer by layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Tiles, read
from xbm_jax.models import forward
from xbm_jax.training.run import Run
from xbm_jax.training.state import TrainState
from xbm_jax.training.step import read_in_step

__all__ = ["culprit"]


class _Found(Exception):
    """Ends the pass; holds the place."""


def culprit(run: Run, train: TrainState, inputs: Any, step: int, key: jax.Array) -> str:
    """The first place of a step's forward pass, in its order, whose numbers are not all finite.

    Args:
        train: as it was before the step.
        inputs: of the step.
        step: of the whole run, from 0 on.
        key: the step's.
    """
    chip, read_key = read_in_step(run.placed_chip, key, run.chip_of_step)

    def observe(path: str, tiles: Tiles, x: jax.Array, gain: jax.Array | None, noise: jax.Array | None) -> jax.Array:
        _see(f"what {path} is given", x)
        y = read(tiles, x, gain, noise)
        _see(f"what {path} answers", y)
        return y

    options = {"train": True, "progress": jnp.asarray(run.pace(step).progress, jnp.float32), "layer_read": observe}
    try:
        answer, _ = forward(chip, run.method, train.trained, train.stats, inputs, key=read_key, **options)
        _see("the head's outputs", answer)
    except _Found as found:
        return str(found)
    return "the loss, of outputs that are finite"


def _see(place: str, values: jax.Array) -> None:
    if not bool(jnp.all(jnp.isfinite(values))):
        raise _Found(place)
