"""What a finished run gives: the task of its best epoch, measured on the test examples."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from xbm_jax import streams
from xbm_jax.examples import count, take
from xbm_jax.storage.plain import plain
from xbm_jax.tasks import Task, active_columns, adc_clip_rates, chip_mark
from xbm_jax.training.clock import Clock
from xbm_jax.training.run import Run, test_examples
from xbm_jax.training.scoring import score
from xbm_jax.training.state import RunState

__all__ = ["finished", "finished_before"]


def finished(run: Run, state: RunState, clock: Clock, seconds: float, together: int = 1) -> Task:
    """The task of the best epoch; ``seconds``: how long learning took, one of so many runs ``together``."""
    method, recipe, task = run.method, run.recipe, _task(run, state)
    tested = score(run, state, state.best, *test_examples(run), run.draw(streams.Run.TEST))
    few = run.evaluated(take(run.data.x_train, run.val_index[: recipe.batch_size]))
    metric, best = recipe.objective.metric, state.best_epoch
    rows = [
        {"epoch": epoch, "loss": float(loss), f"val_{metric}": float(value)}
        for epoch, (loss, value) in enumerate(np.asarray(state.history)[: int(state.epoch)])
    ]
    sizes = {"train": len(run.train_index), "validation": len(run.val_index), "test": count(run.data.x_test)}
    meta: dict[str, Any] = {
        "task": run.data.name,
        "method": method.name,
        metric: tested,
        f"val_{metric}": rows[best][f"val_{metric}"],
        "best_epoch": best,
        "history": rows,
        "class_names": list(run.data.class_names),
        "images": sizes,
        "image_shape": list(run.data.x_train.shape[1:]) if run.data.kind == "images" else None,
        **({} if run.data.tokenizer is None else {"tokenizer": dict(run.data.tokenizer)}),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        **_changed(run),
        "recipe": plain(recipe),
        "norm_policy": method.norms,
        "active_columns": active_columns(run.chip, task),
        "adc_clip_rate": adc_clip_rates(run.chip, task, few, run.draw(streams.Run.PROBE)),
        "seconds": seconds,
        "images_per_second": recipe.batch_size * together * clock.rate,
    }
    return task.replace(meta=meta)


def finished_before(run: Run, state: RunState, meta: dict[str, Any]) -> Task:
    """The task that :func:`finished` gave for a run and its last state, and that was ``meta`` as JSON."""
    return _task(run, state).replace(meta={**meta, **_changed(run)})


def _task(run: Run, state: RunState) -> Task:
    """The task of the best epoch, without what was measured of it."""
    method, kept = run.method, run.layout.here(state.best)
    head = method.head.cut(kept.trained["head"], run.outputs)
    own_state = jax.device_get(kept.stats) if method.norms == "full" else {}
    return Task({**kept.trained, "head": head}, own_state, method, chip=chip_mark(run.chip))


def _changed(run: Run) -> dict[str, Any]:
    """How training images were changed; its tuples are none in JSON."""
    augment = run.recipe.augment
    return {"augment": None if augment is None else dataclasses.asdict(augment)}
