"""Three numbers of a task's cost, for tables that are about something else."""

from __future__ import annotations

from typing import Any, NamedTuple

from xbm_jax.hardware.constants.technology import load_technology
from xbm_jax.hardware.costs import cost
from xbm_jax.hardware.workloads import Training, workload
from xbm_jax.models import Chip
from xbm_jax.tasks import Task

__all__ = ["USUAL_TECHNOLOGY", "CostSummary", "cost_summary"]

USUAL_TECHNOLOGY = "isaac-32nm"
"""Of tables that name one: the one with a source for most components."""


class CostSummary(NamedTuple):
    """What a task costs, every input at full scale.

    Attributes:
        technology: whose constants these are.
        inference_joules: of one example.
        adaption_joules: of learning the task: its passes, cells written once at the end, bits stored.
        switch_joules: of going from the backbone to the task: cells written and bits loaded.
    """

    technology: str
    inference_joules: float
    adaption_joules: float
    switch_joules: float


def cost_summary(chip: Chip, task: Task, inputs: Any, technology: str = USUAL_TECHNOLOGY) -> CostSummary:
    """The summary of a task that :func:`~xbm_jax.training.adapt` learned; ``inputs``: examples, for their shape.

    Raises:
        SpecError: converters that the technology has no model of.
    """
    meta = task.meta
    training = Training(meta["images"]["train"], meta["epochs"], meta["batch_size"])
    found = cost(chip, task, load_technology(technology), workload(chip, inputs, training=training))
    parts = {name: float(joules) for name, joules in found.adaption_joules.items()}
    switch = sum(parts.get(name, 0.0) for name in ("cell writes", "verify reads", "task memory"))
    return CostSummary(found.technology, float(found.inference_joules), float(found.adaption_total_joules), switch)
