"""Learning several tasks at once: the runs of :func:`~xbm_jax.training.adapt`, step by step under ``vmap``.

Each run has its own images, order, rates and keys, as if it were alone; only the training steps are shared. It is meant
for a GPU or TPU, which one small network does not fill; on a CPU eight steps together take 0.89 of eight
(`benchmarks/`), and compile for longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from xbm_jax.data import Dataset
from xbm_jax.errors import DataError
from xbm_jax.masks import Method
from xbm_jax.models import Chip
from xbm_jax.promotion import numpy_promotion
from xbm_jax.tasks import Task
from xbm_jax.tasks.evaluation import head_width
from xbm_jax.training.learning import learned
from xbm_jax.training.recipe import Recipe
from xbm_jax.training.run import Report, Run
from xbm_jax.training.step import ChipOfStep

__all__ = ["adapt_together"]


@numpy_promotion
def adapt_together(
    chips: Sequence[Chip] | Chip,
    data: Sequence[Dataset],
    *,
    method: Method,
    keys: Sequence[jax.Array] | jax.Array,
    config: Recipe | None = None,
    report: Report | None = None,
    start: Sequence[Task | None] | None = None,
    chip_of_step: ChipOfStep | None = None,
) -> list[Task]:
    """:func:`~xbm_jax.training.adapt` of every task, to rounding: one compiled step for all of them.

    Args:
        chips: the chip of all tasks, or a chip for each; of one design, so that they differ in numbers alone.
        data: a task each, with inputs of one shape and as many steps an epoch; their numbers of classes may differ.
        method: what is learned besides the head. A head on frozen features is learned one after another.
        keys: one for each task; draws everything random.
        config: as for one task.
        report: called after every step, with the means over tasks.
        start: as for one task, one for each.
        chip_of_step: as for one task.

    Raises:
        SpecError, DataError, MethodError: as for one task, and tasks that do not fit together; before the first step.
        TrainingError: as for one task; it names the task.

    Returns:
        The tasks, in order. ``meta["seconds"]`` is each one's share of the time that all took.
    """
    data, keys = _listed("data", data, "a sequence of data sets"), _listed("keys", keys, "a sequence of keys")
    each = [chips] * len(data) if isinstance(chips, Chip) else _listed("chips", chips, "a Chip, or a sequence of them")
    first = [None] * len(data) if start is None else _listed("start", start, "a sequence of tasks, or None")
    if not len(data) == len(keys) == len(each) == len(first):
        value = f"{len(keys)}, {len(each)} chips and {len(first)} tasks to start from"
        raise DataError("keys", value, f"one for each of {len(data)} tasks")
    config = Recipe() if config is None else config
    places = [f" ({i} of {len(data)})" for i in range(1, len(data) + 1)]
    runs = [
        Run(chip, task, method, config, key, report if i == 0 else None, begun, chip_of_step, place)
        for i, (chip, task, key, begun, place) in enumerate(zip(each, data, keys, first, places, strict=True))
    ]
    for run in runs:
        run.check()
    _check(runs)
    return learned(runs) if runs else []


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
    "input shapes": lambda run: jax.tree.map(lambda a: a.shape[1:], run.data.x_train),
    "width of the head": lambda run: head_width(run.outputs),
    "steps an epoch": lambda run: run.steps,
}
