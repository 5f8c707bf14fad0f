"""Phases of a rule: what it asks of gradients on training examples, and the state that it leaves."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax import streams
from xbm_jax.masks import Method, Rule
from xbm_jax.models import Chip
from xbm_jax.streams import stream
from xbm_jax.training.recipe import How
from xbm_jax.training.run import Run
from xbm_jax.training.state import TrainState
from xbm_jax.training.step import loss_and_stats

__all__ = ["turned"]

_BATCHES = 16
"""Batches whose mean gradient a phase decides by."""


def turned(run: Run, state: TrainState, epoch: int) -> TrainState:
    """The state with its rule's values as the rule's phase leaves them; see :meth:`xbm_jax.masks.Rule.turned`."""
    rule = run.method.rule
    assert rule is not None  # asked before
    plans = {path: tiles.plan for path, tiles in run.chip.tiles.items()}
    masks = rule.turned(plans, state.trained["masks"], lambda as_rule: _gradients(run, state, as_rule, epoch))
    return state._replace(trained={**state.trained, "masks": masks})


def _gradients(run: Run, state: TrainState, rule: Rule, epoch: int) -> dict[str, Any]:
    """The loss's gradients of the rule's values over the first batches of an epoch, added up."""
    method = dataclasses.replace(run.method, rule=rule).learned
    key, total = run.draw(streams.Run.CHOICE), None
    for i, index in enumerate(run.order(epoch)[:_BATCHES]):
        inputs, targets = run.batch(index, epoch, i)
        given = (method, run.how, run.placed_chip, state.trained, state.stats, inputs, targets, run.pace(0).outputs)
        found = _batch_gradients(*given, stream(key, i))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    assert total is not None  # an epoch has a step
    return total


@partial(jax.jit, static_argnames=("method", "how"))
def _batch_gradients(
    method: Method,
    how: How,
    chip: Chip,
    trained: Any,
    stats: Any,
    inputs: Any,
    targets: jax.Array,
    outputs: Any,
    key: jax.Array,
) -> dict[str, Any]:
    grads, _ = jax.grad(loss_and_stats, has_aux=True)(trained, method, how, chip, stats, inputs, targets, outputs, key)
    return grads["masks"]
