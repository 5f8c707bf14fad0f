"""Learning tasks on a chip.

1. Hold out a stratified validation split of the training examples.
2. Train ``task.trained`` for some epochs; after each, measure the validation score and keep the best.
3. Measure the test score once, with what was kept.

Every random choice (head, split, order, read noise) comes from the key. The loop is
:func:`~xbm_jax.training.loop.advance`, from one :class:`~xbm_jax.training.state.RunState` to the next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any

import jax
from jax.sharding import Mesh

from xbm_jax.data import Dataset, each, resize, to_rgb
from xbm_jax.errors import DataError
from xbm_jax.layout import Layout
from xbm_jax.masks import Method
from xbm_jax.models import Chip
from xbm_jax.promotion import numpy_promotion
from xbm_jax.tasks import Task
from xbm_jax.tasks.evaluation import head_width
from xbm_jax.training.checks import check_chip, check_data
from xbm_jax.training.clock import Clock
from xbm_jax.training.loop import advance
from xbm_jax.training.recipe import Recipe
from xbm_jax.training.result import finished, finished_before
from xbm_jax.training.run import Report, Run
from xbm_jax.training.saved import watching
from xbm_jax.training.saves import Saves, as_saves
from xbm_jax.training.step import ChipOfStep

__all__ = ["Save", "adapt", "adapt_together", "for_chip"]

Save = Saves | str | PathLike[str] | None
"""Where a run is saved, if it is."""


def for_chip(chip: Chip, data: Dataset, image_size: int | None = None) -> Dataset:
    """The data with images as the chip's backbone takes them: grey repeated to its channels, resized if asked.

    Raises:
        DataError: colour images for a backbone of grey ones, or an impossible size.
        SpecError: no chip.
    """
    check_chip(chip)
    check_data(data)
    if data.kind != "images" or chip.network.preprocess is None:
        raise DataError("data", f"{data.kind} for {chip.network.name}", "images, for a backbone of images")
    images, channels = [data.x_train, data.x_test], len(chip.network.preprocess.mean)
    if images[0].shape[-1] > channels:
        raise DataError("data channels", images[0].shape[-1], f"{channels}, as the chip's backbone takes them")
    if channels == 3:
        images = [each(x, to_rgb, "RGB") for x in images]
    if image_size is not None:
        images = [each(x, partial(resize, size=image_size), f"{image_size} px") for x in images]
    return dataclasses.replace(data, x_train=images[0], x_test=images[1])


@numpy_promotion
def adapt(
    chip: Chip,
    data: Dataset,
    *,
    method: Method,
    key: jax.Array,
    config: Recipe | None = None,
    report: Report | None = None,
    start: Task | None = None,
    chip_of_step: ChipOfStep | None = None,
    save: Save = None,
    mesh: Mesh | None = None,
) -> Task:
    """Learn ``data`` on ``chip`` without changing the chip.

    Args:
        chip: programmed and calibrated; shared by all tasks.
        data: images and labels; grey images must have been repeated to the chip's channels.
        method: what is learned besides the head.
        key: draws everything random.
        config: how it is learned: epochs, batch size, rates, objective; the same for every method to be compared.
        report: called for every step, once up to eight later ones are under way.
        start: a task whose norms, statistics, head (of as many classes, or ``{}``) and mask logits (if its rule is the
            same) training starts from, of each what ``method`` trains; ``None``: the chip's norms and a random head.
        chip_of_step: ``(chip, key) -> chip``, traceable: the chip of every training step, for masks that hold on many
            chips (``xbm.models.redrawn``). Validation and test are on ``chip`` itself.
        save: a folder of this run alone, or :class:`~xbm_jax.training.Saves`: all of its state is saved there while it
            goes on, with a log. Killed at any moment, the same call carries on, and ends bit for bit the same; once it
            is done, the same call gives the task at once.
        mesh: devices that share every batch (:func:`xbm_jax.layout.mesh`), of all processes, each of which makes this
            very call; ``None``: one device. A run may be carried on over another mesh: that is no other run, but sums
            are of another order.

    Raises:
        SpecError, DataError, MethodError: what cannot be learned, before the first step.
        TrainingError: a loss, a trained number or a logit that is not finite; it names the step, and the rates.
        OutputError: ``save`` cannot be written, another process learns in it, or the run in it was asked something
            else, before the first step; or its disk is full, and then the last save stands.
        BankError: all saves there are damaged.
        Interrupted: Ctrl-C or SIGTERM within :func:`xbm_jax.training.interruptible`, after a save.

    Returns:
        The task. ``task.meta`` holds test and validation accuracy, the history, the share of active columns and the
        ADC clip rate per layer, and the time it took.
    """
    config = Recipe() if config is None else config
    run = Run(chip, data, method, config, key, report, start, chip_of_step, layout=Layout(mesh))
    return _learned([run], save)[0]


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
    save: Save = None,
    mesh: Mesh | None = None,
) -> list[Task]:
    """:func:`~xbm_jax.training.adapt` of every task, to rounding: one compiled step for all of them.

    Args:
        chips: the chip of all tasks, or a chip for each; of one design, so that they differ in numbers alone.
        data: a task each, with inputs of one shape and as many steps an epoch; their numbers of classes may differ.
        method: what is learned besides the head. A head on frozen features is learned one after another.
        keys: one for each task; draws everything random.
        config: as for one task.
        report: as for one task, with the means over tasks.
        start: as for one task, one for each.
        chip_of_step: as for one task.
        save: as for one task; one folder for all.
        mesh: devices that share tasks, along its axis ``task``, and every batch, along ``data``.

    Raises:
        SpecError, DataError, MethodError: as for one task, and tasks that do not fit together; before the first step.
        TrainingError: as for one task; it names the task.
        OutputError, BankError, Interrupted: as for one task.

    Returns:
        The tasks, in order. ``meta["seconds"]`` is each one's share of the time that all took.
    """
    data, keys = _listed("data", data, "a sequence of data sets"), _listed("keys", keys, "a sequence of keys")
    each = [chips] * len(data) if isinstance(chips, Chip) else _listed("chips", chips, "a Chip, or a sequence of them")
    first = [None] * len(data) if start is None else _listed("start", start, "a sequence of tasks, or None")
    if not len(data) == len(keys) == len(each) == len(first):
        value = f"{len(keys)}, {len(each)} chips and {len(first)} tasks to start from"
        raise DataError("keys", value, f"one for each of {len(data)} tasks")
    config, layout = Recipe() if config is None else config, Layout(mesh)
    places = [f" ({i} of {len(data)})" for i in range(1, len(data) + 1)]
    runs = [
        Run(chip, task, method, config, key, report if i == 0 else None, begun, chip_of_step, place, layout)
        for i, (chip, task, key, begun, place) in enumerate(zip(each, data, keys, first, places, strict=True))
    ]
    return _learned(runs, save) if runs else []


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


def _learned(runs: Sequence[Run], save: Save) -> list[Task]:
    """The tasks of runs that share their steps, if there are several."""
    saves, clock = as_saves(save), Clock()
    for run in runs:
        run.check()
    _check(runs)
    layout, recipe = runs[0].layout, runs[0].recipe
    layout.check(len(runs), recipe.batch_size, recipe.eval_batch_size)
    with watching(saves, runs, clock) as watch:
        with layout.context:
            states = watch.states()
            while watch.metas is None and int(states[0].epoch) < recipe.epochs:
                states = advance(runs, states, clock, watch.stepped)
                watch.ended(states)
        if watch.metas is not None:
            return [finished_before(*each) for each in zip(runs, states, watch.metas, strict=True)]
        seconds = watch.seconds / len(runs)
        tasks = [finished(run, state, clock, seconds, len(runs)) for run, state in zip(runs, states, strict=True)]
        watch.done(states, [task.meta for task in tasks])
        return tasks
