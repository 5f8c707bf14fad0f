"""Learning several tasks at once: the runs of :func:`~xbm_jax.training.learning`, step by step under ``vmap``.

Each run has its own images, order, rates and keys, as if it were alone; only the training steps are shared. It is meant
for a GPU or TPU, which one small network does not fill; on a CPU eight steps together take 0.89 of eight
(`benchmarks/`), and compile for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.data import Dataset, made_ahead
from xbm_jax.errors import DataError
from xbm_jax.masks import ArrayChoice, Method
from xbm_jax.models import Chip
from xbm_jax.promotion import numpy_promotion
from xbm_jax.tasks import Task
from xbm_jax.training.config import TrainConfig
from xbm_jax.training.run import Report, Run
from xbm_jax.training.step import train_steps

__all__ = ["adapt_together"]


@numpy_promotion
def adapt_together(
    chips: Sequence[Chip] | Chip,
    data: Sequence[Dataset],
    *,
    method: Method,
    keys: Sequence[jax.Array] | jax.Array,
    config: TrainConfig | None = None,
    report: Report | None = None,
) -> list[Task]:
    """:func:`~xbm_jax.training.learning` of every task, to rounding: one compiled step for all of them.

    Args:
        chips: the chip of all tasks, or a chip for each; of one design, so that they differ in numbers alone.
        data: a task each, with images of one size, as many classes and as many steps an epoch.
        method: what is learned besides the head. A head on frozen features, and a rule that chooses arrays, are learned
            one after another.
        keys: one for each task; draws everything random.
        config: as for one task.
        report: called after every step, with the means over tasks.

    Raises:
        SpecError, DataError, MethodError: as for one task, and tasks that do not fit together; before the first step.
        TrainingError: as for one task; it names the task.

    Returns:
        The tasks, in order. ``meta["seconds"]`` is each one's share of the time that all took.
    """
    data, keys = _listed("data", data, "a sequence of data sets"), _listed("keys", keys, "a sequence of keys")
    each = [chips] * len(data) if isinstance(chips, Chip) else _listed("chips", chips, "a Chip, or a sequence of them")
    config = TrainConfig() if config is None else config
    if not len(data) == len(keys) == len(each):
        raise DataError("keys", f"{len(keys)}, and {len(each)} chips", f"one for each of {len(data)} tasks")
    began = time.perf_counter()
    places = [f" ({i} of {len(data)})" for i in range(1, len(data) + 1)]
    parts = zip(each, data, keys, places, strict=True)
    runs = [Run(chip, task, method, config, key, report, place=place) for chip, task, key, place in parts]
    for run in runs[1:]:
        run.report = None
    _check(runs)
    if not runs:
        return []
    if runs[0].on_features or isinstance(method.rule, ArrayChoice):
        for run in runs:
            run.learn()
    else:
        _train(runs)
    seconds = (time.perf_counter() - began) / len(runs)
    return [run.task(seconds) for run in runs]


def _train(runs: Sequence[Run]) -> None:
    """All epochs of all runs."""
    first = runs[0]
    shared = all(run.chip is first.chip for run in runs)
    chips = first.chip if shared else _stacked([run.chip for run in runs])
    states = _stacked([run.state for run in runs])
    for epoch in range(first.config.epochs):
        orders, losses = [run.order(epoch) for run in runs], []
        batches = made_ahead(lambda i, orders=orders, epoch=epoch: _batch(runs, orders, epoch, i), first.steps)
        for i, (images, labels) in enumerate(batches):
            began, step = time.perf_counter(), epoch * first.steps + i
            moments = [run.moment(step) for run in runs]
            rate, _, progress = moments[0]
            keys = jnp.stack([key for _, key, _ in moments])
            states, seen = train_steps(first.method, chips, states, images, labels, rate, keys, progress, shared=shared)
            losses.append(np.asarray(seen["loss"], np.float64))
            seconds = (time.perf_counter() - began) / len(runs)
            for run, loss in zip(runs, losses[-1], strict=True):
                run.check_losses([loss], step)
            for run in runs:
                run.tell(step, float(np.mean(losses[-1])), float(np.mean(seen["accuracy"])), seconds)
        for i, (run, loss) in enumerate(zip(runs, np.mean(losses, 0), strict=True)):
            state = jax.tree.map(lambda a, i=i: a[i], states)
            run.end_epoch(state, float(loss))


def _batch(runs: Sequence[Run], orders: Sequence[np.ndarray], epoch: int, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a step, runs leading."""
    images = [run.augmented(order[i], epoch, i) for run, order in zip(runs, orders, strict=True)]
    labels = [run.data.y_train[order[i]] for run, order in zip(runs, orders, strict=True)]
    return np.stack(images), np.stack(labels)


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _listed(field: str, values: Any, allowed: str) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise DataError(field, type(values).__name__, allowed) from None


def _check(runs: Sequence[Run]) -> None:
    """One program serves all runs only where their shapes are equal, and all that is static about their chips."""
    for run in runs[1:]:
        first, name = runs[0], run.data.name
        for what, of in _SHARED.items():
            if of(run) != of(first):
                raise DataError(f"{what} of {name!r}", of(run), f"{of(first)}, as {first.data.name!r} has")
        if jax.tree.structure(run.chip) != jax.tree.structure(first.chip):
            raise DataError("chips", f"another design for {name!r}", "chips of one spec and backbone")


_SHARED: Mapping[str, Callable[[Run], Any]] = {
    "image shape": lambda run: run.data.x_train.shape[1:],
    "classes": lambda run: run.data.num_classes,
    "steps an epoch": lambda run: run.steps,
}
