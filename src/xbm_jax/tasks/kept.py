"""What a bank keeps of a task beside its mask codes: two numbers a channel in 16 bits, a head of 8 bits a weight."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.models import Chip
from xbm_jax.models.norm import folded_norms
from xbm_jax.promotion import numpy_promotion
from xbm_jax.tasks.task import Task, evaluate, is_compact, stored

__all__ = ["compact", "measured_as_kept"]


@numpy_promotion
def compact(chip: Chip, task: Task) -> Task:
    """The task as a bank keeps it by default: mask codes, folded norms, a small head. It is for use, not to learn on.

    A batch norm's four numbers a channel become two (:func:`xbm_jax.models.folded_norm`), kept as float16, or as
    float32 where float16 would lose more than 2**-10 of them; the head is the method's
    :meth:`~xbm_jax.masks.Head.compact` one. Predictions differ by that rounding.

    Raises:
        BankError: a task of another chip.
    """
    if is_compact(task):
        return stored(chip, task)
    task = stored(chip, task)
    # Statistics of a task that trains no norms are its own too: then the chip's norms are folded with them.
    own = task.trained["norms"] or (chip.norms if task.state else {})
    norms = folded_norms(own, task.state or chip.stats, chip.network.epsilons)
    halves = jax.tree.map(_half, norms)
    if all(jax.tree.leaves(jax.tree.map(_is_kept, norms, halves))):
        norms = halves
    head = task.method.head.compact(task.trained["head"]) if task.trained["head"] else {}
    return task.replace(trained={**task.trained, "norms": norms, "head": head}, state={})


def measured_as_kept(chip: Chip, task: Task, images: Any, targets: Any, *, key: jax.Array | None = None) -> Task:
    """The compact task, its ``meta["accuracy"]`` measured anew; ``meta["accuracy_learned"]`` is the one of before.

    What is reported of a task should be what its stored form answers; the rounding moves single images.

    Args:
        images: uint8 [n, H, W, C], or what else the chip takes: those that the accuracy is to be of.
        targets: class indices [n].
        key: draws read noise, where reads are noisy.
    """
    kept = compact(chip, task)
    measured = evaluate(chip, kept, images, targets, key=key)
    return kept.replace(meta={**task.meta, "accuracy": measured, "accuracy_learned": task.meta.get("accuracy")})


def _half(array: jax.Array) -> jax.Array:
    return jnp.asarray(array).astype(jnp.float16)


def _is_kept(array: Any, half: Any) -> bool:
    """Whether half precision keeps numbers to 2**-10 of each, or of a thousandth of the largest."""
    array, half = np.asarray(array, np.float64), np.asarray(half, np.float64)
    scale = np.maximum(np.abs(array), 1e-3 * np.abs(array).max(initial=0.0))
    return bool(np.all(np.abs(array - half) <= 2.0**-10 * scale))
