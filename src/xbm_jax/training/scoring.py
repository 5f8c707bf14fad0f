"""How good what was trained is, on validation or test examples."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from xbm_jax import streams
from xbm_jax.tasks.evaluation import scores, scoring_program
from xbm_jax.training.diverged import check_score
from xbm_jax.training.run import Run, examples_of
from xbm_jax.training.state import RunState

__all__ = ["score", "scoring_compiled", "validation_key"]


def validation_key(run: Run, state: RunState) -> jax.Array:
    """Draws what is random where the epoch that a state is in is validated."""
    return run.draw(streams.Run.VALIDATION, int(state.epoch))


def score(run: Run, state: RunState, train: Any, inputs: Any, targets: np.ndarray, key: jax.Array) -> float:
    """Mean score of what was trained on examples, in evaluation mode."""
    given = (run.method, run.recipe.objective, train.trained, train.stats, inputs, targets, run.outputs, key)
    with run.layout.context:
        found, broken = scores(run.placed_chip, *given, batch_size=run.recipe.eval_batch_size, layout=run.layout)
    check_score(run, state, broken, len(found))
    return float(np.mean(found))


@contextmanager
def scoring_compiled(run: Run, state: RunState) -> Iterator[None]:
    """The program of :func:`score`, compiled in a thread while the caller works; it is done where this ends.

    It is traced and lowered before, in the caller's context and with the caller's errors; XLA itself needs no Python.
    """
    size, train = run.recipe.eval_batch_size, state.train
    inputs, _ = examples_of(run, run.val_index[:size])
    given = (run.method, train.trained, train.stats, inputs, validation_key(run, state))
    with run.layout.context:
        program = scoring_program(run.placed_chip, *given, batch_size=size, layout=run.layout)
    with ThreadPoolExecutor(max_workers=1) as pool:
        compiled = pool.submit(program.compile)
        yield
        compiled.result()
