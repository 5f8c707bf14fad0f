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

__all__ = ["Classification", "MultiLabel", "Objective", "Regression", "TokenClassification"]


@dataclass(frozen=True)
class Objective:
    """The base of all objectives; a user's own is a frozen dataclass with these methods.

    Heads are padded, so that tasks share compiled code: of the ``outputs`` [batch, width] the first ``count`` mean
    something. Where the network's head answers every token they are [batch, tokens, width].

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
        wanted = _wide(targets, outputs)
        squares = jnp.where(jnp.arange(outputs.shape[-1]) < count, (outputs - wanted) ** 2, 0.0)
        return jnp.sum(squares, -1) / count

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        return -self.loss(outputs, targets, count)


@dataclass(frozen=True)
class MultiLabel(Objective):
    """Any of several labels, targets 0 or 1 [batch, count]: mean binary cross-entropy; the score is the share that is
    right, a label counting as there where its output is above 0."""

    metric: ClassVar[str] = "label accuracy"

    def outputs(self, data: Dataset) -> int:
        for field in ("y_train", "y_test"):
            targets = getattr(data, field)
            if np.ndim(targets) != 2 or not np.isin(targets, (0, 1)).all():
                raise DataError(field, f"{targets.dtype}{list(targets.shape)}", "0 or 1 for each label, [n, labels]")
        return np.shape(data.y_train)[-1]

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        own = jnp.arange(outputs.shape[-1]) < count
        losses = optax.sigmoid_binary_cross_entropy(outputs, _wide(targets, outputs).astype(outputs.dtype))
        return jnp.sum(jnp.where(own, losses, 0.0), -1) / count

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        own = jnp.arange(outputs.shape[-1]) < count
        right = (outputs > 0) == (_wide(targets, outputs) > 0)
        return jnp.sum(jnp.where(own, right, False), -1) / count

    def predict(self, outputs: ArrayLike) -> ArrayLike:
        return jnp.asarray(outputs) > 0


@dataclass(frozen=True)
class TokenClassification(Objective):
    """A label for each token, int [batch, tokens], below 0 where none counts: the mean cross-entropy of an example's
    tokens; the score is the share of them that is right.

    Args:
        classes: how many labels there are; by default one more than the largest of the data.
    """

    classes: int | None = None
    metric: ClassVar[str] = "token accuracy"

    def outputs(self, data: Dataset) -> int:
        classes = self.classes or max(int(data.y_train.max()) + 1, 2)
        for field in ("y_train", "y_test"):
            targets = getattr(data, field)
            if np.ndim(targets) != 2 or not np.issubdtype(targets.dtype, np.integer):
                raise DataError(field, f"{targets.dtype}{list(targets.shape)}", "whole numbers, [n, tokens]")
            if targets.max() >= classes:
                raise DataError(field, int(targets.max()), f"labels below {classes}, or below 0 for no label")
            if not (targets >= 0).any(-1).all():
                raise DataError(field, "an example without a label", "at least one token with a label in each")
        return classes

    def loss(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        labels = jnp.maximum(targets, 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(_own(outputs, count), labels)
        return _mean_of_labelled(losses, targets)

    def score(self, outputs: jax.Array, targets: jax.Array, count: jax.Array | int) -> jax.Array:
        right = jnp.argmax(_own(outputs, count), -1) == targets
        return _mean_of_labelled(right.astype(jnp.float32), targets)

    def predict(self, outputs: ArrayLike) -> ArrayLike:
        return jnp.argmax(jnp.asarray(outputs), -1)


def _mean_of_labelled(values: jax.Array, targets: jax.Array) -> jax.Array:
    """The mean over an example's tokens that have a label; examples that fill a batch up have none, and get 0."""
    labelled = targets >= 0
    return jnp.sum(jnp.where(labelled, values, 0.0), -1) / jnp.maximum(jnp.sum(labelled, -1), 1)


def _wide(targets: jax.Array, outputs: jax.Array) -> jax.Array:
    """Targets [batch, count] with zeros beyond, as wide as the outputs."""
    return jnp.pad(targets, ((0, 0), (0, outputs.shape[-1] - targets.shape[-1])))


def _own(outputs: jax.Array, count: jax.Array | int) -> jax.Array:
    """The outputs, with minus infinity beyond the task's own."""
    return jnp.where(jnp.arange(outputs.shape[-1]) < count, outputs, -jnp.inf)
