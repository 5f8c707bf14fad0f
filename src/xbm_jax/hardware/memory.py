"""What a task stores and writes, and the arrays that a chip occupies: exact, from chip and task alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from xbm_jax.crossbar import Plan, Tiles, cells_written
from xbm_jax.masks import Rule
from xbm_jax.models import Chip, array_weights
from xbm_jax.tasks import Task
from xbm_jax.tasks import compact as as_compact
from xbm_jax.tasks.task import check_fits

__all__ = ["TaskBits", "arrays_used", "bits_of", "code_bits", "layer_arrays", "task_bits", "task_cells_written"]


@dataclass(frozen=True)
class TaskBits:
    """Bits that one task stores, told apart.

    Attributes:
        mask_bits: masks, in the width of their code.
        weight_bits_stored: weights, or what stands in for them (fine-tuning, XMA2, LoRA), in the width of their code.
        norm_bits: norms: two numbers a channel of a compact task; scales, biases and statistics of one to learn on.
        head_bits: the classifier.
        backbone_weights: weights on crossbars, the first denominator.
        backbone_parameters: all trainable parameters of the backbone, the second.
    """

    mask_bits: int
    weight_bits_stored: int
    norm_bits: int
    head_bits: int
    backbone_weights: int
    backbone_parameters: int

    @property
    def total(self) -> int:
        """Everything that a bank keeps for the task."""
        return self.mask_bits + self.weight_bits_stored + self.norm_bits + self.head_bits

    @property
    def mask_share_of_weights(self) -> float:
        """Mask bits per crossbar weight: 1 for Piggyback, 1 / rows of a tile for XBM; 0 where no layer is on arrays."""
        return self.mask_bits / self.backbone_weights if self.backbone_weights else 0.0

    @property
    def mask_share_of_parameters(self) -> float:
        """Mask bits per backbone parameter, the denominator of the XBM paper's 1.4 %."""
        return self.mask_bits / self.backbone_parameters


def task_bits(chip: Chip, task: Task, *, compact: bool = True) -> TaskBits:
    """Count a task's bits: ``sum over layers of codes * code width`` for masks, norms and head as they are kept.

    Args:
        compact: as :func:`xbm_jax.tasks.compact` keeps it, a bank's default; else as it is, 32 bits a value of a task
            to learn on.
    """
    check_fits(chip, task)
    kept = as_compact(chip, task) if compact else task
    plans = {path: tiles.plan for path, tiles in chip.tiles.items()}
    bits = {kind: int(count) for kind, count in code_bits(task.method.rule, plans, task.trained["masks"]).items()}
    return TaskBits(
        mask_bits=bits["mask"],
        weight_bits_stored=bits["weights"],
        norm_bits=bits_of(kept.trained["norms"]) + bits_of(kept.state),
        head_bits=bits_of(kept.trained["head"]),
        backbone_weights=array_weights(chip),
        backbone_parameters=chip.network.num_parameters,
    )


def code_bits(rule: Rule | None, plans: dict[str, Plan], values: dict[str, Any]) -> dict[str, Any]:
    """Bits of a task's codes, of each kind; traceable in ``values``, which may decide how many are needed."""
    bits: dict[str, Any] = {"mask": 0, "weights": 0}
    if rule is None:
        return bits
    for path, plan in plans.items():
        kept, needed = rule.stored(plan), rule.needed(plan, values[path])
        for codes, count in zip(jax.tree.leaves(kept), jax.tree.leaves(needed), strict=True):
            bits[codes.kind] += codes.bits * count
    return bits


def task_cells_written(chip: Chip, task: Task) -> int:
    """Physical cells whose level the task changes against the programmed backbone; 0 for column masks."""
    check_fits(chip, task)
    rule = task.method.rule
    if rule is None or not rule.rewrites_cells:
        return 0
    return sum(
        int(_layer_cells_written(rule, tiles, task.trained["masks"][path])) for path, tiles in chip.tiles.items()
    )


@partial(jax.jit, static_argnames="rule")
def _layer_cells_written(rule: Rule, tiles: Tiles, values: Any) -> jax.Array:
    return cells_written(tiles, rule.apply(tiles, values)[0])


def layer_arrays(plan: Plan) -> int:
    """Arrays of one layer: ``ceil(K / rows)`` times column blocks, for each group of a convolution.

    A logical column stands on its slices' and polarities' neighbouring bit lines, so that a pair is subtracted where
    it stands: an array holds ``floor(cols / (S * P))`` logical columns.
    """
    return math.prod(plan.array_grid)


def arrays_used(chip: Chip) -> int:
    """Arrays of the whole chip."""
    return sum(layer_arrays(tiles.plan) for tiles in chip.tiles.values())


def bits_of(tree: Any) -> int:
    """Bits of all arrays of a tree, in the dtypes that they have."""
    return sum(8 * leaf.dtype.itemsize * int(np.size(leaf)) for leaf in jax.tree.leaves(tree))
