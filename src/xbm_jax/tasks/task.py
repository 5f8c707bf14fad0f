"""A task: everything that one task owns on a chip that it shares with others."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from xbm_jax.errors import BankError, DataError
from xbm_jax.examples import count
from xbm_jax.masks import Method
from xbm_jax.models import Chip, check_inputs, norm_statistics, source_trained
from xbm_jax.models import forward as run_network
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import checked_key
from xbm_jax.tasks.evaluation import EVAL_BATCH, answers, padded, scores
from xbm_jax.tasks.marks import ChipMark, chip_mark
from xbm_jax.tasks.objectives import Classification, Objective

__all__ = [
    "Task",
    "check_fits",
    "checked_call",
    "evaluate",
    "forward",
    "is_compact",
    "predict",
    "source_task",
    "stored",
]
__all__ += ["same_bits", "with_measured_norms"]


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False)
class Task:
    """What a task learned. A pytree of ``trained`` and ``state``; a stack of tasks is a task with a leading axis.

    Attributes:
        trained: ``{"masks": {path: values}, "norms": {path: {scale, bias}}, "head": {kernel, bias}}``. Mask values are
            real logits after training and integer codes once stored. In a compact task
            (:func:`xbm_jax.tasks.compact`) batch norms are ``{slope, shift}`` and the head is of small integers.
        state: running statistics ``{path: {mean, var}}``; empty where the method leaves the chip's.
        method: how ``trained`` is read (static).
        meta: what was measured, JSON-like. It belongs to exactly this task: tree transformations drop it.
        chip: which chip it was learned on; no other runs it. ``None``, as after a tree transformation, is not known and
            not checked: ``task.replace(chip=None)`` takes masks to another chip on purpose.
    """

    trained: dict[str, Any]
    state: dict[str, Any]
    method: Method
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    chip: ChipMark | None = None

    def __eq__(self, other: object) -> bool:
        """Whether method, names, shapes, dtypes and bits are equal; ``meta`` and ``chip`` are not looked at."""
        if not isinstance(other, Task):
            return NotImplemented
        (mine, structure), (theirs, of_other) = jax.tree.flatten(self), jax.tree.flatten(other)
        return structure == of_other and all(same_bits(a, b) for a, b in zip(mine, theirs, strict=True))

    def tree_flatten_with_keys(self) -> tuple[tuple, Method]:
        """Children with their names, for JAX."""
        names = ("trained", "state")
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), self.method

    @classmethod
    def tree_unflatten(cls, method: Method, children: tuple) -> Task:
        """Rebuild from children, for JAX."""
        return cls(children[0], children[1], method)

    @property
    def outputs(self) -> int:
        """Outputs of the task's head: for a classifier its number of classes."""
        return self.method.head.outputs(self.trained["head"])

    @property
    def num_classes(self) -> int:
        """:attr:`outputs`, by a classifier's name for them."""
        return self.outputs

    def replace(self, **changes: Any) -> Task:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def source_task(chip: Chip) -> Task:
    """The task that the backbone was pretrained on, as the chip runs it."""
    return Task(source_trained(chip), {}, Method("source", norms="frozen"), chip=chip_mark(chip))


def is_compact(task: Task) -> bool:
    """Whether a task has the form that is for use and not to learn on (:func:`xbm_jax.tasks.compact`)."""
    leaves = jax.tree.leaves((task.trained["norms"], task.trained["head"]))
    return _is_folded(task) or any(leaf.dtype.itemsize < 4 for leaf in leaves)


def _is_folded(task: Task) -> bool:
    """Whether statistics are folded into the task's norms."""
    return any("slope" in affine for affine in task.trained["norms"].values())


@numpy_promotion
def stored(chip: Chip, task: Task) -> Task:
    """The task with mask logits replaced by the integer codes that a bank keeps. It predicts the same, bit for bit."""
    check_fits(chip, task)
    rule = task.method.rule
    if rule is None:
        return task
    masks = {path: rule.encode(chip.tiles[path], values) for path, values in task.trained["masks"].items()}
    return task.replace(trained={**task.trained, "masks": masks})


@numpy_promotion
def with_measured_norms(
    chip: Chip,
    task: Task,
    images: Any,
    *,
    batch_size: int = 64,
    key: jax.Array | None = None,
) -> Task:
    """The task with running statistics of its own measured anew through the chip as it is; nothing else changes.

    As :func:`xbm_jax.models.measure_norms` does for the source task: a remedy for drift and faults that writes no cell
    and needs no labels.

    Args:
        images: uint8 [n, H, W, C], training images of the task, at least one batch.
        key: draws read noise; needed where the chip's reads are noisy.

    Raises:
        BankError: a task of another chip, or a compact one whose statistics are folded into norms of its own.
    """
    check_fits(chip, task)
    if _is_folded(task):
        allowed = "a task with statistics of its own: as adapt gave it, or bank.put(name, task, compact=False)"
        raise BankError("task", "compact", allowed)
    key = checked_call(chip, task, images, batch_size, key)
    return task.replace(state=norm_statistics(chip, task.method, task.trained, images, batch_size=batch_size, key=key))


@numpy_promotion
def predict(
    chip: Chip,
    task: Task,
    images: Any,
    *,
    key: jax.Array | None = None,
    batch_size: int = EVAL_BATCH,
    objective: Objective | None = None,
) -> np.ndarray:
    """Outputs of the task's head [n, outputs], logits of classes mostly; in batches of one compiled size.

    Args:
        images: uint8 [n, H, W, C], or what else the chip's network takes.
        objective: give what it reads from the outputs instead: class indices [n], of ``Classification()``.

    Raises:
        BankError: a task of another chip. DataError: images that the chip cannot read, or a batch size below 1.
        SpecError: what is no key, or none for noisy reads.
    """
    check_fits(chip, task)
    key = checked_call(chip, task, images, batch_size, key)
    inputs, stats = check_inputs(chip, images), task.state or chip.stats
    found = answers(chip, task.method, task.trained, stats, inputs, key, batch_size=batch_size)
    return found if objective is None else np.asarray(objective.predict(found))


@numpy_promotion
def forward(chip: Chip, task: Task, inputs: Any, *, key: jax.Array | None = None) -> jax.Array:
    """Outputs [batch, outputs] of one batch, for ``jit``, ``vmap`` and ``grad``: nothing is checked or compiled here.

    ``inputs``: uint8 images [batch, H, W, C], or what else the chip's network takes; ``key`` draws read noise.
    """
    return run_network(chip, task.method, task.trained, task.state or chip.stats, inputs, key=key)[0]


@numpy_promotion
def evaluate(
    chip: Chip,
    task: Task,
    images: Any,
    targets: Any,
    *,
    objective: Objective | None = None,
    key: jax.Array | None = None,
    batch_size: int = EVAL_BATCH,
) -> float:
    """The mean score of a task on a chip: by default the share of images that are predicted as labelled.

    Raises:
        XbmError: as :func:`predict`. DataError: none, or not as many targets as images.
    """
    check_fits(chip, task)
    key = checked_call(chip, task, images, batch_size, key)
    inputs, targets = check_inputs(chip, images), np.asarray(targets)
    if not count(inputs) or targets.shape[:1] != (count(inputs),):
        value = f"{list(targets.shape)} for {count(inputs)} images"
        raise DataError("targets", value, "one for each image, and at least one")
    objective = Classification() if objective is None else objective
    trained, stats = padded(task.method, task.trained), task.state or chip.stats
    found = scores(
        *(chip, task.method, objective, trained, stats, inputs, targets, task.outputs, key), batch_size=batch_size
    )
    return float(np.mean(found[0]))


def check_fits(chip: Chip, task: Task) -> None:
    """Raise BankError unless ``task`` was learned on ``chip``, where that is known, and has what its layers need."""
    if not isinstance(chip, Chip):
        raise DataError("chip", type(chip).__name__, "a Chip: xbm.program(backbone, spec, key)")
    if not isinstance(task, Task):
        raise DataError("task", type(task).__name__, "a Task: what xbm.adapt gives, or bank.get(name)")
    own = None if task.chip is None else chip_mark(chip)
    if task.chip is not None and own is not None and not task.chip.same_chip(own):
        allowed = f"{own}, this chip; task.replace(chip=None) takes masks to another one on purpose"
        raise BankError("task.chip", str(task.chip), allowed)
    masks = task.trained["masks"]
    if task.method.rule is not None and masks.keys() != chip.tiles.keys():
        raise BankError("task.trained['masks']", sorted(masks), f"the chip's layers {sorted(chip.tiles)}")
    head = task.trained["head"]
    if head and task.method.head.features(head) != chip.num_features:
        got = f"{task.method.head.features(head)} features"
        raise BankError("task.trained['head']", got, f"{chip.num_features}, what this chip gives")


def checked_call(chip: Chip, task: Task | None, images: Any, batch_size: Any, key: Any) -> jax.Array | None:
    """The key of a call that goes through images in batches, checked with what else is easily mistaken."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((images, chip, task))):
        allowed = "arrays: this compiles on its own; inside of jit, vmap or grad call xbm_jax.models.forward"
        raise DataError("images, chip or task", "traced", allowed)
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise DataError("batch_size", batch_size, "at least 1, a whole number")
    return None if key is None else checked_key(key)


def same_bits(one: Any, other: Any) -> bool:
    """Whether two arrays are equal in shape, dtype and every bit."""
    a, b = np.asarray(one), np.asarray(other)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
