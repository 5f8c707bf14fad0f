"""Serving a bank: one compiled function answers a batch in which every image may belong to another task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.banks.bank import MaskBank, card_of
from xbm_jax.banks.cards import chip_card
from xbm_jax.crossbar import Tiles
from xbm_jax.crossbar.writing.lines import plan_by_line
from xbm_jax.errors import BankError, DataError, MethodError, warn
from xbm_jax.examples import count
from xbm_jax.masks import Head, Linear, Method, Rule
from xbm_jax.models import Chip, check_inputs, forward
from xbm_jax.models.norm import folded_norms
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import stream
from xbm_jax.tasks.evaluation import batches
from xbm_jax.tasks.task import Task, checked_call

__all__ = ["Server", "serve"]


@dataclass(frozen=True)
class _Gains(Rule):
    """A task whose values are the gains themselves, of columns or of lines."""

    def apply(self, tiles: Tiles, values: Any, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        del progress
        return tiles, values


@dataclass(frozen=True)
class Server:
    """Tasks of one chip stacked for serving. ``server(images, task=...)`` gives class indices.

    Attributes:
        chip: the chip.
        names: the served tasks, in stacking order.
        classes: number of classes of each.
        trained: gains, folded norms and heads with a leading task axis; heads padded to the widest, gains of columns to
            gains of lines in layers where any of the tasks has those.
        batch_size: images per compiled call; a last, smaller batch is padded.
        head: what all tasks' heads are.
    """

    chip: Chip
    names: tuple[str, ...]
    classes: tuple[int, ...]
    trained: dict[str, Any]
    batch_size: int
    head: Head = field(default_factory=Linear)

    def __call__(self, images: Any, task: str | Sequence[str], key: jax.Array | None = None) -> np.ndarray:
        """Class index of each image under its task, int [n]."""
        return np.argmax(self.logits(images, task, key), axis=-1)

    @numpy_promotion
    def logits(self, images: Any, task: str | Sequence[str], key: jax.Array | None = None) -> np.ndarray:
        """Logits [n, widest head] of uint8 NHWC images; minus infinity beyond a task's own classes.

        Args:
            task: one name for all images, or a name per image.
            key: draws read noise, for every image its own; needed where the chip's reads are noisy. Equal keys draw
                equal noise: give each call another.
        """
        key = checked_call(self.chip, None, images, self.batch_size, key)
        images = check_inputs(self.chip, images)
        index = self._indices(task, count(images))
        method, parts = Method("", _Gains(), norms="affine", head=self.head), []
        for start, (batch, tasks), valid in batches((images, index), self.batch_size):
            batch_key = None if key is None else stream(key, start)
            logits = np.asarray(mixed_logits(method, self.chip, self.trained, tasks, batch, batch_key))
            parts.append(self._own(logits, tasks)[:valid])
        return np.concatenate(parts) if parts else np.zeros((0, max(self.classes)), np.float32)

    def _own(self, logits: np.ndarray, tasks: np.ndarray) -> np.ndarray:
        """Logits [n, widest], those beyond a task's own classes minus infinity."""
        own = np.arange(logits.shape[-1]) < np.asarray(self.classes)[tasks][:, None]
        return np.where(own, logits, np.float32(-np.inf))

    def _indices(self, task: str | Sequence[str], count: int) -> np.ndarray:
        names = [task] * count if isinstance(task, str) else list(task)
        if len(names) != count:
            raise DataError("task", f"{len(names)} names", f"one name, or {count}: one per image")
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise DataError("task", unknown, "served tasks: " + ", ".join(self.names))
        return np.array([self.names.index(name) for name in names], np.int32)


@numpy_promotion
def serve(chip: Chip, bank: MaskBank, names: Sequence[str] | None = None, *, batch_size: int = 64) -> Server:
    """Load tasks from a bank for serving together; ``None`` takes all that can be read, and warns of the others.

    Raises:
        BankError: a chip that is not the bank's, a named task that is not there or cannot be read, or none of all can.
        MethodError: a task that rewrites cells: the chip would have to be reprogrammed within the batch; or column
            gains other than 0 and 1 beside a task by line, where a pair has one converter: they act behind it, gains
            of lines before.
        DataError: no task, names that are no list, or a batch size below 1.
    """
    if not isinstance(bank, MaskBank):
        raise DataError("bank", bank, "a MaskBank: xbm.MaskBank.open(folder, chip)")
    if isinstance(names, str):
        raise DataError("names", names, f"a list of names: [{names!r}]")
    checked_call(chip, None, None, batch_size, None)
    if chip is not bank.chip:
        card_of(bank.folder).check(chip_card(chip))
    found = _readable(bank) if names is None else {name: bank.get(name) for name in names}
    if not found:
        raise DataError("names", tuple(found), "at least one task of the bank: " + ", ".join(bank.names))
    chosen, tasks = tuple(found), list(found.values())
    for name, task in found.items():
        if task.method.rewrites_cells:
            allowed = "tasks that rewrite no cell; a chip holds one such task at a time"
            raise MethodError(f"tasks[{name!r}].method", task.method.name, allowed)
        if task.method.computes_beside:
            allowed = "tasks of column masks, norms and heads alone; predict(chip, task, images) answers this one"
            raise MethodError(f"tasks[{name!r}].method", task.method.name, allowed)
    heads = {task.method.head for task in tasks}
    if len(heads) > 1:
        raise MethodError("tasks", sorted(map(repr, heads)), "tasks with one kind of head; serve the others apart")
    widest = max(task.num_classes for task in tasks)
    common = [_common(chip, task, widest) for task in tasks]
    _gains_alike(chip, found, common)
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *common)
    classes = tuple(task.num_classes for task in tasks)
    return Server(chip, chosen, classes, stacked, batch_size, heads.pop())


def _readable(bank: MaskBank) -> dict[str, Task]:
    """Every task of the bank, but for damaged ones: each is named in a warning."""
    found, errors = {}, {}
    for name in bank.names:
        try:
            found[name] = bank.get(name)
        except BankError as error:
            errors[name] = error
    for name, error in errors.items():
        if not found:
            raise BankError("bank", str(bank.folder), f"a bank with a task that can be read ({error})") from error
        warn(f"task {name!r} cannot be read and is not served: {error}")
    return found


def _common(chip: Chip, task: Task, widest: int) -> dict[str, Any]:
    """A task in the form that all served tasks share: gains, folded norms, a head of ``widest`` classes."""
    rule, masks = task.method.rule, task.trained["masks"]
    gains = {}
    for path, tiles in chip.tiles.items():
        gain = None if rule is None else rule.apply(tiles, masks[path])[1]
        gains[path] = jnp.ones((tiles.plan.row_tiles, tiles.plan.columns), jnp.float32) if gain is None else gain
    padded = task.method.head.padded(task.method.head.full(task.trained["head"]), widest)
    norms = {path: task.trained["norms"].get(path, affine) for path, affine in chip.norms.items()}
    folded = folded_norms(norms, task.state or chip.stats, chip.network.epsilons)
    return {"masks": gains, "norms": jax.tree.map(lambda a: a.astype(jnp.float32), folded), "head": padded}


def _gains_alike(chip: Chip, tasks: dict[str, Task], common: list[dict[str, Any]]) -> None:
    """Give a layer's gains of columns to both lines of each pair where any of the tasks has gains by line."""
    for path, tiles in chip.tiles.items():
        gains = [of_task["masks"] for of_task in common]
        if all(own[path].ndim == 2 for own in gains):
            continue
        before = tiles.plan.spec.subtract == "analog" and not plan_by_line(tiles.plan).fold
        for (name, task), own in zip(tasks.items(), gains, strict=True):
            if own[path].ndim == 3:
                continue
            if before and not np.isin(np.asarray(own[path]), (0.0, 1.0)).all():
                allowed = f"gains of 0 and 1 in {path}, where another served task gates lines before the converter"
                raise MethodError(f"tasks[{name!r}].method", task.method.name, allowed)
            own[path] = jnp.stack([own[path]] * 2, axis=1)


@partial(jax.jit, static_argnames="method")
def mixed_logits(
    method: Method, chip: Chip, trained: Any, index: jax.Array, images: Any, key: jax.Array | None
) -> jax.Array:
    """Logits of images, each under the task of its index: what tasks do not share is gathered per image."""

    def single(i: jax.Array, image: Any, place: jax.Array) -> jax.Array:
        own_key = None if key is None else stream(key, place)
        own = jax.tree.map(lambda a: a[i], trained)
        one = jax.tree.map(lambda a: a[None], image)
        return forward(chip, method, own, chip.stats, one, gain_at="columns", key=own_key)[0][0]

    return jax.vmap(single)(index, images, jnp.arange(len(index)))
