"""One training step: gradients and Optax over ``task.trained`` alone; the chip is an argument that nothing changes.

What is static decides the program: rule, norm policy and head (``Method.learned``), optimizer and objective (``How``).
Rates, schedules and the number of a task's outputs are numbers of a :class:`Pace`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from xbm_jax import streams
from xbm_jax.errors import SpecError
from xbm_jax.masks import Method
from xbm_jax.masks.budget import priced
from xbm_jax.models import Chip, forward
from xbm_jax.streams import stream
from xbm_jax.training.recipe import How
from xbm_jax.training.state import TrainState

__all__ = ["ChipOfStep", "Pace", "head_epoch", "init_state", "loss_and_stats", "paced", "read_in_step", "train_step"]
__all__ += ["train_steps"]

ChipOfStep = Callable[[Chip, jax.Array], Chip]
"""``(chip, key) -> chip``, traceable: the chip of a training step."""


class Pace(NamedTuple):
    """The numbers of a step.

    Attributes:
        rates: learning rates by group (masks, norms, head), float32.
        factors: what their schedules make of them at this step, likewise.
        progress: share of the training done, float32.
        outputs: how many of the padded head's outputs are the task's, int32.
    """

    rates: dict[str, Any]
    factors: dict[str, Any]
    progress: Any
    outputs: Any


def optimizer(how: How) -> optax.GradientTransformation:
    """Adam (b1 0.9, b2 0.999, eps 1e-8) or SGD (momentum 0.9) at a rate of one, moments of each group apart.

    With ``how.mask_eps`` Adam sees the masks' gradients in units of their root mean square, and that epsilon.
    """
    make = partial(optax.adam, 1.0) if how.optimizer == "adam" else partial(optax.sgd, 1.0, momentum=0.9)
    groups: dict[Any, optax.GradientTransformation] = {group: make() for group in ("masks", "norms", "head")}
    if how.optimizer == "adam" and how.mask_eps is not None:
        groups["masks"] = optax.chain(optax.stateless(_relative), optax.adam(1.0, eps=how.mask_eps))
    return optax.partition(groups, _groups)


def _relative(gradients: Any, _: Any = None) -> Any:
    """Gradients divided by their root mean square over the whole network; zeros where all are."""
    leaves = jax.tree.leaves(gradients)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(g)) for g in leaves])) if leaves else jnp.float32(0)
    unit = jnp.where(largest > 0, largest, 1)  # squares of small gradients would be none in float32
    square = sum(jnp.sum((g / unit) ** 2) for g in leaves) / max(sum(g.size for g in leaves), 1)
    return jax.tree.map(lambda g: (g / unit) / jnp.where(largest > 0, jnp.sqrt(square), 1), gradients)


def init_state(how: How, trained: dict[str, Any], stats: dict[str, Any]) -> TrainState:
    """The state before the first step; moments exist for ``trained`` only."""
    return TrainState(trained, stats, optimizer(how).init(trained))


def loss_and_stats(
    trained: dict[str, Any],
    method: Method,
    how: How,
    chip: Chip,
    stats: dict[str, Any],
    inputs: Any,
    targets: jax.Array,
    outputs: Any,
    key: jax.Array,
    progress: jax.Array | None = None,
) -> tuple[jax.Array, tuple[dict[str, Any], jax.Array]]:
    """Mean loss of a batch; beside it the new running statistics and the mean score."""
    answer, followed = forward(chip, method, trained, stats, inputs, train=True, progress=progress, key=key)
    loss = jnp.mean(how.objective.loss(answer, targets, outputs))
    if how.budget is not None and method.rule is not None:
        loss = loss + priced(how.budget, method.rule, chip.tiles, trained["masks"], progress)
    return loss, (followed, jnp.mean(how.objective.score(answer, targets, outputs)))


def read_in_step(chip: Chip, key: jax.Array, chip_of_step: ChipOfStep | None) -> tuple[Chip, jax.Array]:
    """The chip of a step, and the key of what is drawn as it is read."""
    if chip_of_step is not None:
        chip = chip_of_step(chip, stream(key, streams.Step.CHIP))
        if not isinstance(chip, Chip):
            raise SpecError("chip_of_step", type(chip).__name__, "a function that returns a Chip")
    return chip, stream(key, streams.Step.READ)


@partial(jax.jit, static_argnames=("method", "how", "chip_of_step"), donate_argnames="state")
def train_step(
    method: Method,
    how: How,
    chip: Chip,
    state: TrainState,
    inputs: Any,
    targets: jax.Array,
    pace: Pace,
    key: jax.Array,
    chip_of_step: ChipOfStep | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step; compiled once per rule, norm policy, head, optimizer, objective and shape, whatever the task.

    Args:
        method: ``Method.learned``: a name or rates in it would compile another program.
        inputs: what the network takes, uint8 images [batch, H, W, C] mostly. targets: [batch, ...].
        key: of this step; draws read noise, and what ``chip_of_step`` draws.
        chip_of_step: the chip of this step; ``None`` is ``chip`` itself.
    """
    chip, read_key = read_in_step(chip, key, chip_of_step)
    grad = jax.value_and_grad(loss_and_stats, has_aux=True)
    progress = jnp.asarray(pace.progress, jnp.float32)
    (loss, (stats, score)), grads = grad(
        state.trained, method, how, chip, state.stats, inputs, targets, pace.outputs, read_key, progress
    )
    return _updated(how, state, grads, pace, stats), {"loss": loss, "score": score}


@partial(jax.jit, static_argnames=("method", "how", "shared", "chip_of_step"), donate_argnames="states")
def train_steps(
    method: Method,
    how: How,
    chips: Chip,
    states: TrainState,
    inputs: Any,
    targets: jax.Array,
    paces: Pace,
    keys: jax.Array,
    chip_of_step: ChipOfStep | None = None,
    *,
    shared: bool,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """A step of several tasks at once, :func:`train_step` under ``vmap``: all but a shared chip lead with the tasks.

    Args:
        chips: one chip for all tasks (``shared``), or a chip a task, stacked.
    """

    def one(chip: Chip, state: TrainState, inputs: Any, targets: jax.Array, pace: Pace, key: jax.Array) -> Any:
        return train_step(method, how, chip, state, inputs, targets, pace, key, chip_of_step)

    return jax.vmap(one, in_axes=(None if shared else 0, 0, 0, 0, 0, 0))(chips, states, inputs, targets, paces, keys)


@partial(jax.jit, static_argnames=("method", "how"))
def head_epoch(
    method: Method,
    how: How,
    state: TrainState,
    features: jax.Array,
    targets: jax.Array,
    order: jax.Array,
    paces: Pace,
) -> tuple[TrainState, jax.Array]:
    """One epoch of a head alone on cached features, and its losses [steps].

    ``order`` int [steps, batch]; ``paces`` lead with the steps.
    """

    def loss(trained: dict[str, Any], index: jax.Array, outputs: Any) -> jax.Array:
        answer = method.head.apply(trained["head"], features[index])
        return jnp.mean(how.objective.loss(answer, targets[index], outputs))

    def step(state: TrainState, xs: tuple[jax.Array, Pace]) -> tuple[TrainState, jax.Array]:
        index, pace = xs
        value, grads = jax.value_and_grad(loss)(state.trained, index, pace.outputs)
        return _updated(how, state, grads, pace, state.stats), value

    return jax.lax.scan(step, state, (order, paces))


def _updated(how: How, state: TrainState, grads: Any, pace: Pace, stats: Any) -> TrainState:
    """The state after a step along ``grads``: each group's update times its rate, times its schedule's factor."""
    updates, opt = optimizer(how).update(grads, state.opt, state.trained)
    trained = optax.apply_updates(state.trained, paced(updates, pace))
    return TrainState(trained, stats, opt)  # type: ignore[arg-type]  # optax calls any tree of parameters Params


def paced(updates: Any, pace: Pace) -> Any:
    """An optimizer's updates at a rate of one, each group's times its rate, times its schedule's factor."""
    return {
        group: jax.tree.map(lambda u, g=group: pace.factors[g] * (pace.rates[g] * u), own)
        for group, own in updates.items()
    }


def _groups(trained: dict[str, Any]) -> dict[str, Any]:
    return {group: jax.tree.map(lambda _, g=group: g, leaves) for group, leaves in trained.items()}
