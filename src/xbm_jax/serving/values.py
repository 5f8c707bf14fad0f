"""What a task is while it is served: its values, unpacked once, in one vector.

    vector = gains of all layers, folded norms, head       float32 [size], in the order of the layout's pytree

All served tasks share one layout, so that one program reads any of them: heads are as wide as the widest, gains of
columns become gains of lines in layers where some task gates lines. A task is held in its own layout, which may be the
smaller one, and put into the common one when it is asked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.writing.lines import plan_by_line
from xbm_jax.errors import MethodError
from xbm_jax.masks import Head, Method
from xbm_jax.models import Chip
from xbm_jax.tasks.applied import applied
from xbm_jax.tasks.task import Task

__all__ = ["Common", "Layout", "Values", "agreed", "unpacked", "vector_in"]


@dataclass(frozen=True)
class Layout:
    """Where what stands in a vector: ``{"masks": gains, "norms": folded, "head": head}``; hashable.

    Attributes:
        structure: of the pytree.
        shapes: of its leaves, in order.
        outputs: of the head.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    outputs: int

    @classmethod
    def of(cls, tree: Any, outputs: int) -> Layout:
        """The layout of a pytree of arrays, or of their shapes."""
        leaves, structure = jax.tree.flatten(tree)
        return cls(structure, tuple(tuple(leaf.shape) for leaf in leaves), outputs)

    @property
    def size(self) -> int:
        """Numbers of a vector."""
        return sum(map(math.prod, self.shapes))

    @property
    def abstract(self) -> Any:
        """Shapes and dtypes of the pytree."""
        leaves = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in self.shapes]
        return jax.tree.unflatten(self.structure, leaves)

    def tree(self, vectors: jax.Array) -> Any:
        """The pytree in a vector, or in a stack of them [..., size]."""
        leaves, start = [], 0
        for shape in self.shapes:
            end = start + math.prod(shape)
            leaves.append(vectors[..., start:end].reshape(*vectors.shape[:-1], *shape))
            start = end
        return jax.tree.unflatten(self.structure, leaves)


@dataclass(frozen=True)
class Values:
    """A served task. Nothing of it ever changes, so that an answer in flight keeps what it began with.

    Attributes:
        vector: its values, on the device.
        layout: where they stand.
        classes: how many outputs of the head are the task's.
        graded: layers with gains of columns other than 0 and 1.
        given: whether it was handed over, and is to be found in no bank.
    """

    vector: jax.Array
    layout: Layout
    classes: int
    graded: frozenset[str]
    given: bool = False


_WIDTH = 16
"""Heads are padded to a multiple of so many outputs, so that tasks of a few more classes compile nothing new."""


def _width(outputs: int) -> int:
    """How wide a head is held that has so many outputs."""
    return -(-outputs // _WIDTH) * _WIDTH


def unpacked(chip: Chip, name: str, task: Task, *, given: bool = False) -> Values:
    """A task's values for serving.

    Raises:
        MethodError: a task that rewrites cells, or computes beside the arrays; ``name`` says which.
    """
    method, field = task.method, f"tasks[{name!r}].method"
    if method.rewrites_cells:
        raise MethodError(field, method.name, "tasks that rewrite no cell; a chip holds one such task at a time")
    if method.computes_beside:
        allowed = "tasks of column masks, norms and heads alone; predict(chip, task, images) answers this one"
        raise MethodError(field, method.name, allowed)
    outputs = _width(task.outputs)
    tree = _values(method.learned, outputs, chip, task.trained, task.state or chip.stats)
    arrays = jax.tree.map(np.asarray, tree)
    vector = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(arrays)])
    graded = [p for p, gain in arrays["masks"].items() if gain.ndim == 2 and not np.isin(gain, (0.0, 1.0)).all()]
    return Values(jnp.asarray(vector), Layout.of(arrays, outputs), task.outputs, frozenset(graded), given)


@partial(jax.jit, static_argnames=("method", "outputs"))
def _values(method: Method, outputs: int, chip: Chip, trained: Any, stats: Any) -> Any:
    """A task in the form that all served tasks share: gains, folded norms, a head in real numbers."""
    own = applied(chip, method, trained, stats)
    gains = {path: gain.astype(jnp.float32) for path, gain in own.trained["masks"].items()}
    return {"masks": gains, "norms": own.trained["norms"], "head": method.head.padded(own.head, outputs)}


@dataclass(frozen=True)
class Common:
    """What served tasks have in common.

    Attributes:
        head: of which kind all heads are.
        layout: where the values of each of them find room.
        graded: layers where some task has gains of columns other than 0 and 1.
    """

    head: Head
    layout: Layout
    graded: frozenset[str] = frozenset()


def agreed(chip: Chip, name: str, method: Method, values: Values, common: Common | None, outputs: int) -> Common:
    """What tasks have in common once one more is among them; ``outputs``: of the widest head that is to come.

    Raises:
        MethodError: a head of another kind; or gains other than 0 and 1 of a column beside gates of its lines, where
        these act before the one converter of a pair and those behind it.
    """
    field, head = f"tasks[{name!r}].method", method.head
    if common is None:
        common = Common(head, _widened(head, values.layout, _width(outputs)))
    if head != common.head:
        allowed = f"{common.head!r} as the others have: tasks with one kind of head; serve the others apart"
        raise MethodError(f"{field}.head", head, allowed)
    layout, graded = _shared(head, values.layout, common.layout), common.graded | values.graded
    for path in sorted(graded):
        plan = chip.tiles[path].plan
        by_line = layout.abstract["masks"][path].ndim == 3
        if by_line and plan.spec.subtract == "analog" and not plan_by_line(plan).fold:
            here = "gains of 0 and 1" if path in values.graded else "gains of columns"
            there = "gates lines" if path in values.graded else "has other column gains than 0 and 1: lines are gated"
            allowed = f"{here} in {path}, where another served task {there} before the converter"
            raise MethodError(field, method.name, allowed)
    return Common(head, layout, graded)


def _widened(head: Head, layout: Layout, outputs: int) -> Layout:
    """The layout with a head of at least so many outputs."""
    if outputs <= layout.outputs:
        return layout
    tree = layout.abstract
    padded = jax.eval_shape(lambda params: head.padded(params, outputs), tree["head"])
    return Layout.of({**tree, "head": padded}, outputs)


def _shared(head: Head, one: Layout, other: Layout) -> Layout:
    """The smallest layout that holds tasks of either."""
    if one == other:
        return one
    tree, gains = _widened(head, one, other.outputs).abstract, other.abstract["masks"]
    masks = {path: max(gain, gains[path], key=lambda g: g.ndim) for path, gain in tree["masks"].items()}
    return Layout.of({**tree, "masks": masks}, max(one.outputs, other.outputs))


def vector_in(common: Common, values: Values) -> jax.Array:
    """A task's vector in the common layout."""
    if values.layout == common.layout:
        return values.vector
    return _moved(common.head, values.layout, common.layout, values.vector)


@partial(jax.jit, static_argnames=("head", "own", "layout"))
def _moved(head: Head, own: Layout, layout: Layout, vector: jax.Array) -> jax.Array:
    """A vector from one layout into a larger one: heads padded, gains of columns given to both lines of each pair."""
    tree, wanted = own.tree(vector), layout.abstract
    masks = {
        path: jnp.stack([gain] * 2, axis=1) if gain.ndim < wanted["masks"][path].ndim else gain
        for path, gain in tree["masks"].items()
    }
    moved = {"masks": masks, "norms": tree["norms"], "head": head.padded(tree["head"], layout.outputs)}
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(moved)])
