"""What a task is asked for: how wrong an answer is, how good, and what is read from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from xbm_jax.data import Dataset
from xbm_jax.errors import DataError

__all__ = ["Classification", "Objective", "Regression"]


@dataclass(frozen=True)
class Objective:
    """The base of all objectives; a user's own is a frozen dataclass with these methods.

    Heads are padded, so that tasks share compiled code: of the ``outputs`` [batch, width] the first ``count`` mean
    something.

    Attributes:
        metric: what tables call the mean score.
    """

    metric: ClassVar[str] = "score"

    def outputs(self, data: Dataset) -> int:
        """How many outputs the data ask of a head."""
        raise TypeError(f"{type(self).__name__} does not say how many outputs {data.name!r} asks for")

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        """What training makes small, float [batch]."""
        raise TypeError(f"{type(self).__name__} has no loss for {outputs.shape} and {targets.shape}")

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        """What an epoch is chosen by and a test reports as its mean, float [batch]; more is better."""
        raise TypeError(f"{type(self).__name__} has no score for {outputs.shape} and {targets.shape}")

    def predict(self, outputs: ArrayLike) -> ArrayLike:
        """What is read from a task's own outputs [batch, count]."""
        return outputs


@dataclass(frozen=True)
class Classification(Objective):
    """One label of several: cross-entropy; the score is 1 where the largest output is the label's, else 0."""

    metric: ClassVar[str] = "accuracy"

    def outputs(self, data: Dataset) -> int:
        if data.num_classes < 2:
            raise DataError("data.class_names", data.class_names, "at least two classes, or another objective")
        return data.num_classes

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(_own(outputs, count), targets)

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        return (jnp.argmax(_own(outputs, count), -1) == targets).astype(jnp.float32)

    def predict(self, outputs: ArrayLike) -> ArrayLike:
        return jnp.argmax(jnp.asarray(outputs), -1)


@dataclass(frozen=True)
class Regression(Objective):
    """Numbers [batch] or [batch, count]: mean squared error over a row's numbers; the score is minus that."""

    def outputs(self, data: Dataset) -> int:
        return 1 if np.ndim(data.y_train) == 1 else np.shape(data.y_train)[-1]

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        targets = targets.reshape(len(targets), -1)
        wanted = jnp.pad(targets, ((0, 0), (0, outputs.shape[-1] - targets.shape[-1])))
        squares = jnp.where(jnp.arange(outputs.shape[-1]) < count, (outputs - wanted) ** 2, 0.0)
        return jnp.sum(squares, -1) / count

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        return -self.loss(outputs, targets, count)


def _own(outputs: jax.Array, count: jax.Array | int) -> jax.Array:
    """The outputs, with minus infinity beyond the task's own."""
    return jnp.where(jnp.arange(outputs.shape[-1]) < count, outputs, -jnp.inf)
