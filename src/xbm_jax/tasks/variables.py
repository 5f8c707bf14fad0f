"""A learned task as plain Flax variables: the chip's weights with the task's gains in them, its norms, its head."""

from __future__ import annotations

from typing import Any

from xbm_jax.models import Chip
from xbm_jax.models import flax_variables as variables_of
from xbm_jax.promotion import numpy_promotion
from xbm_jax.tasks.task import Task, check_fits, source_task

__all__ = ["flax_variables"]


@numpy_promotion
def flax_variables(chip: Chip, task: Task | None = None) -> Any:
    """Variables with which the user's own module, without a chip, answers as ``task`` does on ``chip``.

    See :func:`xbm_jax.models.flax_variables`, which says where both are equal; ``None``: the source task.

    Raises:
        BankError: a task of another chip. MethodError: one that no kernels stand for.
    """
    task = source_task(chip) if task is None else task
    check_fits(chip, task)
    return variables_of(chip, task.method, task.trained, task.state or chip.stats)
