"""Which arrays a task of XMA2 rewrites: decided once, by gradients on training images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.masks import ArrayChoice, Method, most_wanted
from xbm_jax.models import Chip
from xbm_jax.streams import stream
from xbm_jax.training.step import TrainState, loss_and_stats

__all__ = ["choose_arrays"]


def choose_arrays(
    method: Method,
    chip: Chip,
    state: TrainState,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    key: jax.Array,
) -> TrainState:
    """The state with its arrays chosen: those with the largest ``sum |dL/dw|`` over the batches' mean gradient.

    Args:
        method: one whose rule is an ArrayChoice.
        batches: training images and labels.
        key: draws read noise, of each batch its own.
    """
    rule = method.rule
    assert isinstance(rule, ArrayChoice)
    undecided = dataclasses.replace(method, rule=rule.undecided)
    total: Any = None
    for i, (images, labels) in enumerate(batches):
        batch_key = stream(key, i)
        found = _weight_gradients(undecided, chip, state.trained, state.stats, images, labels, batch_key)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    plans = {path: tiles.plan for path, tiles in chip.tiles.items()}
    chosen = most_wanted(plans, total, rule.share)
    masks = {path: {**values, "arrays": jnp.asarray(chosen[path])} for path, values in state.trained["masks"].items()}
    return state._replace(trained={**state.trained, "masks": masks})


@partial(jax.jit, static_argnames="method")
def _weight_gradients(
    method: Method, chip: Chip, trained: Any, stats: Any, images: jax.Array, labels: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    grads, _ = jax.grad(loss_and_stats, has_aux=True)(trained, method, chip, stats, images, labels, key)
    return {path: values["weights"] for path, values in grads["masks"].items()}
