"""A head alone: the frozen network is run once over the examples, and the head learns from its features."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.data import epoch_batches
from xbm_jax.masks import Method
from xbm_jax.tasks.objectives import Objective
from xbm_jax.training.clock import Clock
from xbm_jax.training.diverged import check_losses, check_score, check_state
from xbm_jax.training.run import Run
from xbm_jax.training.state import RunState
from xbm_jax.training.step import head_epoch

__all__ = ["head_epochs"]


def head_epochs(run: Run, state: RunState, clock: Clock) -> RunState:
    """The state after one more epoch."""
    clock.start()
    features, targets = run.features
    count, epoch = len(run.train_index), int(state.epoch)
    order = epoch_batches(count, run.recipe.batch_size, run.seed, epoch)
    each = [run.pace(epoch * run.steps + i) for i in range(run.steps)]
    paces = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    train, losses = head_epoch(run.method.learned, run.how, state.train, features, targets, order, paces)
    clock.step(losses, run.steps)
    losses = np.asarray(losses, np.float64)
    check_losses(run, state, losses, epoch * run.steps)
    check_state(run, state, train)
    given = (run.method.learned, run.recipe.objective, train.trained["head"], features[count:], targets[count:])
    found, finite = _head_scores(*given, np.int32(run.outputs))
    check_score(run, state, int(np.sum(~np.asarray(finite))), len(finite))
    clock.read(found)
    return state.after(train, run.steps, float(np.mean(losses)), float(np.mean(np.asarray(found, np.float64))))


@partial(jax.jit, static_argnames=("method", "objective"))
def _head_scores(
    method: Method, objective: Objective, head: Any, features: jax.Array, targets: jax.Array, outputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    answer = method.head.apply(head, features)
    return objective.score(answer, targets, outputs), jnp.isfinite(answer).all(tuple(range(1, answer.ndim)))
