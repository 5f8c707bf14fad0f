"""One training step: gradients and Optax over ``task.trained`` alone; the chip is an argument that nothing changes."""

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
from xbm_jax.models import Chip, forward, head_logits
from xbm_jax.streams import stream

__all__ = ["TrainState", "head_epoch", "init_state", "loss_and_stats", "train_step", "train_steps"]


class TrainState(NamedTuple):
    """What changes while a task is learned; a pytree, so that many tasks stack and ``vmap``."""

    trained: dict[str, Any]
    stats: dict[str, Any]
    opt: optax.OptState


def optimizer(method: Method) -> optax.GradientTransformation:
    """Adam (b1 0.9, b2 0.999, eps 1e-8) or SGD (momentum 0.9) with the method's rates for masks, norms and head."""
    rates = {"masks": method.mask_lr, "norms": method.norm_lr, "head": method.head_lr}
    make = optax.adam if method.optimizer == "adam" else partial(optax.sgd, momentum=0.9)
    return optax.partition({group: make(rate) for group, rate in rates.items()}, _groups)


def init_state(method: Method, trained: dict[str, Any], stats: dict[str, Any]) -> TrainState:
    """The state before the first step; moments exist for ``trained`` only."""
    return TrainState(trained, stats, optimizer(method).init(trained))


def loss_and_stats(
    trained: dict[str, Any],
    method: Method,
    chip: Chip,
    stats: dict[str, Any],
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    progress: jax.Array | None = None,
) -> tuple[jax.Array, tuple[dict[str, Any], jax.Array]]:
    """Mean cross-entropy of a batch; beside it the new running statistics and the share of correct images."""
    logits, followed = forward(chip, method, trained, stats, images, train=True, progress=progress, key=key)
    loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))
    return loss, (followed, jnp.mean(jnp.argmax(logits, -1) == labels))


@partial(jax.jit, static_argnames=("method", "chip_of_step"), donate_argnames="state")
def train_step(
    method: Method,
    chip: Chip,
    state: TrainState,
    images: jax.Array,
    labels: jax.Array,
    rate: jax.Array,
    key: jax.Array,
    progress: jax.Array | float = 1.0,
    chip_of_step: Callable[[Chip, jax.Array], Chip] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step; compiled once per method and shape, whatever the task.

    Args:
        images: uint8 [batch, H, W, C]. labels: int [batch].
        rate: factor on all learning rates, the schedule's value at this step.
        key: of this step; draws read noise, and what ``chip_of_step`` draws.
        progress: share of the training done.
        chip_of_step: ``(chip, key) -> chip``: the chip of this step; ``None`` is ``chip`` itself.
    """
    if chip_of_step is not None:
        chip = chip_of_step(chip, stream(key, streams.Step.CHIP))
        if not isinstance(chip, Chip):
            raise SpecError("chip_of_step", type(chip).__name__, "a function that returns a Chip")
    read_key = stream(key, streams.Step.READ)
    grad = jax.value_and_grad(loss_and_stats, has_aux=True)
    (loss, (stats, accuracy)), grads = grad(
        state.trained, method, chip, state.stats, images, labels, read_key, jnp.asarray(progress, jnp.float32)
    )
    return _updated(method, state, grads, rate, stats), {"loss": loss, "accuracy": accuracy}


@partial(jax.jit, static_argnames=("method", "shared"), donate_argnames="states")
def train_steps(
    method: Method,
    chips: Chip,
    states: TrainState,
    images: jax.Array,
    labels: jax.Array,
    rate: jax.Array,
    keys: jax.Array,
    progress: jax.Array | float = 1.0,
    *,
    shared: bool,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """A step of several tasks at once, :func:`train_step` under ``vmap``: states, images, labels and keys lead with it.

    Args:
        chips: one chip for all tasks (``shared``), or a chip a task, stacked.
    """

    def one(chip: Chip, state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array) -> Any:
        return train_step(method, chip, state, images, labels, rate, key, progress)

    return jax.vmap(one, in_axes=(None if shared else 0, 0, 0, 0, 0))(chips, states, images, labels, keys)


@partial(jax.jit, static_argnames="method")
def head_epoch(
    method: Method, state: TrainState, features: jax.Array, labels: jax.Array, order: jax.Array, rates: jax.Array
) -> tuple[TrainState, jax.Array]:
    """One epoch of a head alone on cached features, and its losses [steps]; ``order`` int [steps, batch]."""

    def loss(trained: dict[str, Any], index: jax.Array) -> jax.Array:
        logits = head_logits(trained["head"], features[index])
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]))

    def step(state: TrainState, xs: tuple[jax.Array, jax.Array]) -> tuple[TrainState, jax.Array]:
        index, rate = xs
        value, grads = jax.value_and_grad(loss)(state.trained, index)
        return _updated(method, state, grads, rate, state.stats), value

    return jax.lax.scan(step, state, (order, rates))


def _updated(method: Method, state: TrainState, grads: Any, rate: jax.Array, stats: Any) -> TrainState:
    """The state after a step along ``grads``, all of the method's rates times ``rate``."""
    updates, opt = optimizer(method).update(grads, state.opt, state.trained)
    trained = optax.apply_updates(state.trained, jax.tree.map(lambda u: rate * u, updates))
    return TrainState(trained, stats, opt)  # type: ignore[arg-type]  # optax calls any tree of parameters Params


def _groups(trained: dict[str, Any]) -> dict[str, Any]:
    return {group: jax.tree.map(lambda _, g=group: g, leaves) for group, leaves in trained.items()}
