"""How good what was trained is, on validation or test examples."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from xbm_jax.tasks.evaluation import scores
from xbm_jax.training.diverged import check_score
from xbm_jax.training.run import Run
from xbm_jax.training.state import RunState

__all__ = ["score"]


def score(run: Run, state: RunState, train: Any, inputs: Any, targets: np.ndarray, key: jax.Array) -> float:
    """Mean score of what was trained on examples, in evaluation mode."""
    given = (run.method, run.recipe.objective, train.trained, train.stats, inputs, targets, run.outputs, key)
    with run.layout.context:
        found, broken = scores(run.placed_chip, *given, batch_size=run.recipe.eval_batch_size, layout=run.layout)
    check_score(run, state, broken, len(found))
    return float(np.mean(found))
