"""A task: everything that one task owns on a chip that it shares with others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.masks import Method
from xbm_jax.models import Chip, check_images, forward, norm_statistics, source_trained
from xbm_jax.promotion import numpy_promotion

__all__ = ["Task", "predict", "source_task", "stored", "with_measured_norms"]

EVAL_BATCH = 128
"""Images per evaluation step: one compiled shape for validation, test and prediction."""


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True)
class Task:
    """What a task learned. A pytree of ``trained`` and ``state``; a stack of tasks is a task with a leading axis.

    Attributes:
        trained: ``{"masks": {path: values}, "norms": {path: {scale, bias}}, "head": {kernel, bias}}``. Mask values are
            real logits after training and integer codes once stored.
        state: running statistics ``{path: {mean, var}}``; empty where the method leaves the chip's.
        method: how ``trained`` is read (static).
        meta: what was measured, JSON-like. It belongs to exactly this task: tree transformations drop it.
    """

    trained: dict[str, Any]
    state: dict[str, Any]
    method: Method
    meta: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def tree_flatten_with_keys(self) -> tuple[tuple, Method]:
        """Children with their names, for JAX."""
        names = ("trained", "state")
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), self.method

    @classmethod
    def tree_unflatten(cls, method: Method, children: tuple) -> Task:
        """Rebuild from children, for JAX."""
        return cls(children[0], children[1], method)

    @property
    def num_classes(self) -> int:
        """Outputs of the task's head."""
        return self.trained["head"]["bias"].shape[-1]

    def replace(self, **changes: Any) -> Task:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def source_task(chip: Chip) -> Task:
    """The task that the backbone was pretrained on, as the chip runs it."""
    return Task(source_trained(chip), {}, Method("source", norms="frozen"))


@numpy_promotion
def stored(chip: Chip, task: Task) -> Task:
    """The task as a bank keeps it: mask logits replaced by their integer codes. It predicts the same, bit for bit."""
    rule = task.method.rule
    if rule is None:
        return task
    masks = {path: rule.encode(chip.tiles[path], values) for path, values in task.trained["masks"].items()}
    return task.replace(trained={**task.trained, "masks": masks})


@numpy_promotion
def with_measured_norms(
    chip: Chip,
    task: Task,
    images: jax.Array | np.ndarray,
    *,
    batch_size: int = 64,
    key: jax.Array | None = None,
) -> Task:
    """The task with running statistics of its own measured anew through the chip as it is; nothing else changes.

    As :func:`xbm_jax.models.measure_norms` does for the source task: a remedy for drift and faults that writes no cell
    and needs no labels.

    Args:
        images: uint8 [n, H, W, C], training images of the task, at least one batch.
        key: draws read noise; needed where the chip's reads are noisy.
    """
    return task.replace(state=norm_statistics(chip, task.method, task.trained, images, batch_size=batch_size, key=key))


@numpy_promotion
def predict(
    chip: Chip,
    task: Task,
    images: jax.Array | np.ndarray,
    *,
    key: jax.Array | None = None,
    batch_size: int = EVAL_BATCH,
) -> np.ndarray:
    """Logits [n, classes] of uint8 NHWC images, in batches of one compiled size."""
    images = check_images(chip, images)
    parts = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        padded = np.zeros((batch_size, *images.shape[1:]), images.dtype)
        padded[: len(batch)] = batch
        batch_key = None if key is None else jax.random.fold_in(key, start)
        logits = batch_logits(task.method, chip, task.trained, task.state or chip.stats, padded, batch_key)
        parts.append(np.asarray(logits)[: len(batch)])
    return np.concatenate(parts) if parts else np.zeros((0, task.num_classes), np.float32)


@partial(jax.jit, static_argnames="method")
def batch_logits(
    method: Method, chip: Chip, trained: dict[str, Any], stats: dict[str, Any], images: jax.Array, key: jax.Array | None
) -> jax.Array:
    """Logits of one batch in evaluation mode."""
    return forward(chip, method, trained, stats, jnp.asarray(images), key=key)[0]
