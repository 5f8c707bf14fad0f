"""What a task answers to many examples: in batches of one compiled size, the last one filled up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.examples import count, take
from xbm_jax.layout import Layout
from xbm_jax.masks import Head, Method
from xbm_jax.masks.heads import Params
from xbm_jax.models import Chip, forward
from xbm_jax.streams import stream
from xbm_jax.tasks.applied import applied
from xbm_jax.tasks.objectives import Objective

__all__ = ["EVAL_BATCH", "Batch", "answers", "batches", "features", "filled", "head_width", "needed_key"]
__all__ += ["padded", "scores", "scoring_program"]

EVAL_BATCH = 128
"""Examples per evaluation step: one compiled shape for validation, test and prediction."""

_NARROWEST = 64

ANYWHERE = Layout()


class Batch(NamedTuple):
    """Examples from ``start`` on: ``inputs`` filled up with zeros, the first ``valid`` of which count."""

    start: int
    inputs: Any
    valid: int


def batches(inputs: Any, size: int) -> Iterator[Batch]:
    """All examples in order, ``size`` at a time."""
    for start in range(0, count(inputs), size):
        part = take(inputs, slice(start, start + size))
        yield Batch(start, filled(part, size), count(part))


def filled(inputs: Any, size: int) -> Any:
    """Examples, at most ``size`` of them, with zeros behind that make them so many."""
    spare = size - count(inputs)

    def of_array(array: Any) -> Any:
        return np.pad(array, [(0, spare)] + [(0, 0)] * (np.ndim(array) - 1)) if spare else array

    return jax.tree.map(of_array, inputs)


def head_width(outputs: int) -> int:
    """Outputs that a head is padded to, so that tasks of different numbers of classes share compiled code."""
    return max(_NARROWEST, 1 << (outputs - 1).bit_length())


def padded(method: Method, trained: dict[str, Any]) -> dict[str, Any]:
    """What a task trained, with its head padded to :func:`head_width`."""
    head = method.head
    return {**trained, "head": head.padded(trained["head"], head_width(head.outputs(trained["head"])))}


def answers(
    chip: Chip,
    method: Method,
    trained: dict[str, Any],
    stats: dict[str, Any],
    inputs: Any,
    key: jax.Array | None = None,
    *,
    batch_size: int = EVAL_BATCH,
) -> np.ndarray:
    """Outputs [n, outputs] of a task's head, or [n, tokens, outputs]; of what was checked already.

    One program serves all tasks on chips of one design that gate columns alike, whatever their heads.
    """
    outputs, own = method.head.outputs(trained["head"]), applied(chip, method, padded(method, trained), stats)

    def of_batch(*given: Any) -> jax.Array:
        return _answered(method.head, own.head, _batch_features(*own.network, *given))

    parts = [part[..., :outputs] for part in _parts(of_batch, inputs, needed_key(chip, key), batch_size)]
    return np.concatenate(parts) if parts else np.zeros((0, outputs), np.float32)


def features(
    chip: Chip,
    method: Method,
    trained: dict[str, Any],
    stats: dict[str, Any],
    inputs: Any,
    key: jax.Array | None = None,
    *,
    batch_size: int = EVAL_BATCH,
    layout: Layout = ANYWHERE,
) -> np.ndarray:
    """The inputs of a task's head, [n, features]; ``trained`` needs no head."""
    of_batch = partial(_batch_features, *applied(chip, method, trained, stats).network)
    return np.concatenate(list(_parts(of_batch, inputs, needed_key(chip, key), batch_size, layout)))


def needed_key(chip: Chip, key: jax.Array | None) -> jax.Array | None:
    """The key, where something is drawn: a program that takes one is another program."""
    return key if chip.noisy else None


def _parts(
    of_batch: Callable[[Any, jax.Array | None], Any],
    inputs: Any,
    key: jax.Array | None,
    batch_size: int,
    layout: Layout = ANYWHERE,
) -> Iterator[Any]:
    """What a compiled function gives for the examples of each batch that count; noise is drawn by the batch's start."""
    for start, batch, valid in batches(inputs, batch_size):
        found = layout.host(of_batch(layout.examples(batch), None if key is None else stream(key, start)))
        yield jax.tree.map(lambda array, valid=valid: array[:valid], found)


def scores(
    chip: Chip,
    method: Method,
    objective: Objective,
    trained: dict[str, Any],
    stats: dict[str, Any],
    inputs: Any,
    targets: np.ndarray,
    outputs: int,
    key: jax.Array | None = None,
    *,
    batch_size: int = EVAL_BATCH,
    layout: Layout = ANYWHERE,
) -> tuple[np.ndarray, int]:
    """The objective's score of every example, float64 [n], and of how many the outputs are not finite.

    ``trained`` has a padded head, the first ``outputs`` of whose outputs are the task's.
    """
    own = applied(chip, method, trained, stats)

    def of_batch(examples: Any, batch_key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        batch, wanted = examples
        seen = _batch_features(*own.network, batch, batch_key)
        return _scored(objective, method.head, own.head, seen, wanted, outputs)

    parts = list(_parts(of_batch, (inputs, targets), needed_key(chip, key), batch_size, layout))
    score, finite = (np.concatenate(part) for part in zip(*parts, strict=True))
    return score.astype(np.float64), int(np.sum(~finite))


def scoring_program(
    chip: Chip,
    method: Method,
    trained: dict[str, Any],
    stats: dict[str, Any],
    inputs: Any,
    key: jax.Array | None = None,
    *,
    batch_size: int = EVAL_BATCH,
    layout: Layout = ANYWHERE,
) -> jax.stages.Lowered:
    """What :func:`scores` of these compiles, lowered only. Once it is compiled, ``scores`` takes it as it is."""
    key, (start, batch, _) = needed_key(chip, key), next(batches(inputs, batch_size))
    own, batch = applied(chip, method, trained, stats), layout.examples(batch)
    return _batch_features.lower(*own.network, batch, None if key is None else stream(key, start))


@partial(jax.jit, static_argnames=("objective", "head"))
def _scored(
    objective: Objective, head: Head, params: Params, seen: jax.Array, targets: jax.Array, outputs: jax.Array
) -> tuple[jax.Array, jax.Array]:
    answer = head.apply(params, seen)
    return objective.score(answer, targets, outputs), jnp.isfinite(answer).all(tuple(range(1, answer.ndim)))


@partial(jax.jit, static_argnames="head")
def _answered(head: Head, params: Params, seen: jax.Array) -> jax.Array:
    return head.apply(params, seen)


@partial(jax.jit, static_argnames="method")
def _batch_features(method: Method, chip: Chip, trained: Any, inputs: Any, key: jax.Array | None) -> jax.Array:
    return forward(chip, method, trained, chip.stats, inputs, key=key, features=True)[0]
