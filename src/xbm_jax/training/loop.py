"""The training loop, of one task or of several at once: epochs that turn :class:`RunState` into its successor.

Several runs share one vmapped step; one run is the same loop without the axis. Losses stay on the device until they
are reported, or the epoch ends; a step is reported once those after it are under way, so that no device waits.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax import streams
from xbm_jax.data import made_ahead
from xbm_jax.errors import DataError, TrainingError
from xbm_jax.layout import stacked, unstacked
from xbm_jax.models import Chip
from xbm_jax.training.clock import Clock
from xbm_jax.training.culprit import culprit
from xbm_jax.training.diverged import check_losses, check_state
from xbm_jax.training.features import head_epochs
from xbm_jax.training.phases import turned
from xbm_jax.training.run import Run, examples_of
from xbm_jax.training.scoring import score, scoring_compiled, validation_key
from xbm_jax.training.state import RunState, TrainState
from xbm_jax.training.step import train_step, train_steps

__all__ = ["Stepped", "advance"]

Stepped = Callable[[int, dict[str, jax.Array], Callable[[], list[RunState]]], None]
"""``(step, seen, standing)`` after a step of the whole run, from 0 on: its losses and scores, which may still be
computed, and what gives the states as they stand."""

Flying = deque[tuple[int, dict[str, jax.Array]]]
"""Steps that were called and not waited for yet, the oldest first, with what they give."""

_IN_FLIGHT = 8
"""Steps that may be under way; more would hold their batches in a device's memory."""


def advance(
    runs: Sequence[Run], states: Sequence[RunState], clock: Clock, watch: Stepped | None = None
) -> list[RunState]:
    """All runs at the end of their epoch, which they may be within.

    Args:
        watch: called after every step; see :data:`Stepped`.

    Raises:
        TrainingError: a loss, a trained number or a score that is not finite; it holds the state of before.
    """
    if runs[0].on_features:
        return [head_epochs(run, state, clock) for run, state in zip(runs, states, strict=True)]
    # While the first step is traced and compiled, a core is idle. Processes compile in one order.
    first = clock.began is None and jax.process_count() == 1
    try:
        with scoring_compiled(runs[0], states[0]) if first else nullcontext():
            trains, losses = _steps(runs, states, clock, watch)
    except TrainingError as error:
        raise _located(error) from error
    return [
        _ended(run, state, train, loss) for run, state, train, loss in zip(runs, states, trains, losses, strict=True)
    ]


def _steps(
    runs: Sequence[Run], states: Sequence[RunState], clock: Clock, watch: Stepped | None
) -> tuple[list[TrainState], list[float]]:
    """What the rest of an epoch's steps makes of each run's state, and the mean losses of all of the epoch's."""
    first, epoch, done, layout = runs[0], int(states[0].epoch), len(states[0].losses), runs[0].layout
    shared = all(run.chip is first.chip for run in runs)
    chips = first.placed_chip if shared else layout.by_task(stacked([run.chip for run in runs]), len(runs))
    # Copies: a step donates what it is given, and the states of before are kept.
    train = layout.by_task(jax.tree.map(jnp.array, stacked([state.train for state in states])), len(runs))
    orders, losses = [run.order(epoch) for run in runs], []
    flying: Flying = deque()
    batches = made_ahead(lambda i: _batch(runs, orders, epoch, done + i), first.steps - done)
    for i, (inputs, targets) in enumerate(batches):
        step = epoch * first.steps + done + i
        rule = first.method.rule
        if rule is not None and rule.turns(step, first.steps, first.recipe.epochs):
            each = zip(runs, unstacked(layout.whole(train), len(runs)), strict=True)
            train = layout.by_task(stacked([turned(run, own, epoch) for run, own in each]), len(runs))
        train, seen = _step(runs, chips, train, inputs, targets, step, shared)
        losses.append(seen["loss"])
        clock.step(losses[-1])
        flying.append((step, seen))
        if len(flying) > _IN_FLIGHT:
            _landed(runs, states, clock, flying)
        if watch is not None:
            watch(step, seen, partial(_standing, runs, states, clock, flying, train, losses))
    while flying:
        _landed(runs, states, clock, flying)
    return unstacked(layout.whole(train), len(runs)), np.mean(_checked(runs, states, losses), axis=0).tolist()


def _located(error: TrainingError) -> TrainingError:
    """The error with the place that its number came from: the epoch's steps are taken once more, up to that one."""
    if error.step is None or jax.process_count() > 1:
        return error
    run, step = dataclasses.replace(error.run, report=None), error.step
    epoch, i = divmod(step, run.steps)
    before = [error.state]

    def stop(taken: int, _: Any, standing: Callable[[], list[RunState]]) -> None:
        if taken == step - 1:
            before[:] = standing()
            raise _Before

    if len(error.state.losses) < i:
        with suppress(_Before):
            _steps([run], [error.state], Clock(), stop)
    train, rule = before[0].train, run.method.rule
    if rule is not None and rule.turns(step, run.steps, run.recipe.epochs):
        train = turned(run, train, epoch)
    inputs, _ = _batch([run], [run.order(epoch)], epoch, i)
    named = f"{error.allowed}; not finite first: {culprit(run, train, inputs, step, _key(run, step))}"
    found = TrainingError(error.field, error.value, named)
    found.state = error.state
    return found


def _key(run: Run, step: int) -> jax.Array:
    return run.draw(streams.Run.STEP, step)


class _Before(Exception):
    """The step before the one that is looked at is done."""


def _checked(runs: Sequence[Run], states: Sequence[RunState], losses: Sequence[jax.Array]) -> np.ndarray:
    """Losses of all steps of the epoch so far, float64 [steps, runs]: those of the states, then ``losses``."""
    found = np.stack([np.asarray(state.losses, np.float64) for state in states], axis=1)
    if losses:
        new = np.asarray(runs[0].layout.host(jnp.stack(losses)), np.float64)
        found = np.concatenate([found, new.reshape(len(losses), len(runs))])
    for run, state, own in zip(runs, states, found.T, strict=True):
        check_losses(run, state, own, int(state.epoch) * run.steps)
    return found


def _standing(
    runs: Sequence[Run],
    states: Sequence[RunState],
    clock: Clock,
    flying: Flying,
    train: TrainState,
    losses: Sequence[jax.Array],
) -> list[RunState]:
    """Each run's state after these steps, all of them reported; the next step donates ``train``: these are copies."""
    while flying:
        _landed(runs, states, clock, flying)
    own = unstacked(runs[0].layout.whole(jax.tree.map(jnp.array, train)), len(runs))
    found = _checked(runs, states, losses)
    return [state.within(each, loss) for state, each, loss in zip(states, own, found.T, strict=True)]


def _step(
    runs: Sequence[Run], chips: Chip, train: TrainState, inputs: Any, targets: Any, step: int, shared: bool
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of all runs."""
    first = runs[0]
    paces = first.layout.by_task(stacked([run.pace(step) for run in runs]), len(runs))
    keys = first.layout.by_task(stacked([_key(run, step) for run in runs]), len(runs))
    given = (first.method.learned, first.how, chips, train, inputs, targets, paces, keys, first.chip_of_step)
    return train_step(*given) if len(runs) == 1 else train_steps(*given, shared=shared)


def _batch(runs: Sequence[Run], orders: Sequence[np.ndarray], epoch: int, i: int) -> tuple[Any, Any]:
    """Inputs and targets of a step of all runs."""

    def rows_of(task: int, rows: slice) -> tuple[Any, np.ndarray]:
        return runs[task].batch(orders[task][i], epoch, i, rows)

    try:
        return runs[0].layout.batch(rows_of, len(runs), runs[0].recipe.batch_size)
    except OSError as error:  # of what lies in a file
        names = ", ".join(dict.fromkeys(run.data.name for run in runs))
        raise DataError("data", names, f"examples that can be read ({error.strerror or error})") from error


def _landed(runs: Sequence[Run], states: Sequence[RunState], clock: Clock, flying: Flying) -> None:
    """Wait for the oldest step that flies, and report it, if that is asked: means over tasks."""
    step, seen = flying.popleft()
    clock.read(seen["loss"], len(flying))
    first = runs[0]
    if first.report is None:
        return
    seen = first.layout.host(seen)
    losses = np.asarray(seen["loss"], np.float64).reshape(len(runs))
    for run, state, loss in zip(runs, states, losses, strict=True):
        check_losses(run, state, [loss], step)
    rate = first.recipe.batch_size * len(runs) * clock.rate
    at = {"epoch": step // first.steps, "step": step + 1, "steps": first.all_steps}
    metric = {first.recipe.objective.metric: float(np.mean(np.asarray(seen["score"], np.float64)))}
    first.report({**at, "loss": float(np.mean(losses)), **metric, "images_per_second": rate})


def _ended(run: Run, state: RunState, train: TrainState, loss: float) -> RunState:
    """A run after an epoch's steps: measured on the validation examples."""
    check_state(run, state, train)
    given = (*examples_of(run, run.val_index), validation_key(run, state))
    return state.after(train, run.steps, loss, score(run, state, train, *given))
