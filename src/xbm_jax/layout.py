"""Where arrays stand when several devices, or several processes, share the work.

One program serves any mesh with the axes ``task`` and ``data``: the chip and what is trained stand on every device,
tasks that are learned together are divided along ``task``, the examples of a batch along ``data``. XLA's partitioner
does the rest, so that layouts differ in the order of sums alone. Without a mesh everything stays where it is.

Every process runs the same calls with the same arguments, reads the rows of a batch that its own devices hold, and
gets every result whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from xbm_jax.errors import SpecError

__all__ = ["AXES", "Layout", "alone", "mesh", "stacked", "unstacked"]

AXES = ("task", "data")


def mesh(task: int = 1, data: int | None = None) -> Mesh:
    """A mesh [task, data] over all devices of all processes, for ``adapt(..., mesh=)``.

    Args:
        task: parts that tasks learned together are divided into; one for a single task.
        data: parts of a batch; ``None``: what is left of the devices.

    Raises:
        SpecError: numbers whose product is not the number of devices.
    """
    count = jax.device_count()
    for name, value in (("task", task), ("data", data)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise SpecError(f"mesh.{name}", value, f"a whole number from 1 to {count}, the number of devices")
    rest = count // task if data is None else data
    if task * rest != count:
        raise SpecError("mesh", f"{task} x {rest}", f"parts whose product is {count}, the number of devices")
    return jax.make_mesh((task, rest), AXES, axis_types=(AxisType.Auto,) * 2)


def alone() -> bool:
    """Whether the program that is traced is one for a single device, as far as a mesh in the context says."""
    return jax.sharding.get_abstract_mesh().size <= 1


@dataclass(frozen=True)
class Layout:
    """A mesh, or none, and what is put onto it how."""

    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if self.mesh is None:
            return
        if not isinstance(self.mesh, Mesh):
            raise SpecError("mesh", type(self.mesh).__name__, "a jax.sharding.Mesh, or None; xbm.mesh() makes one")
        unknown = set(self.mesh.axis_names) - set(AXES)
        if unknown:
            raise SpecError("mesh.axis_names", self.mesh.axis_names, "of " + ", ".join(AXES))
        if any(kind != AxisType.Auto for kind in self.mesh.axis_types):
            raise SpecError(
                "mesh.axis_types", self.mesh.axis_types, "AxisType.Auto for each axis; xbm.mesh() makes such"
            )

    @property
    def context(self) -> AbstractContextManager[Any]:
        """In which programs for this layout are traced and called."""
        return nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def parts(self, axis: str) -> int:
        """How many parts an axis divides into."""
        return 1 if self.mesh is None else dict(self.mesh.shape).get(axis, 1)

    def check(self, tasks: int, batch_size: int, eval_batch_size: int) -> None:
        """Raise SpecError unless tasks and batches can be divided evenly."""
        every = self.parts("task") * self.parts("data")
        for field, value, parts in (
            ("tasks", tasks, self.parts("task")),
            ("config.batch_size", batch_size, self.parts("data")),
            ("config.eval_batch_size", eval_batch_size, every),
        ):
            if value % parts:
                raise SpecError(field, value, f"a multiple of {parts}, the parts that the mesh divides it into")

    def everywhere(self, tree: Any) -> Any:
        """A copy on every device."""
        return self._placed(tree, P())

    def by_task(self, tree: Any, several: int) -> Any:
        """Arrays with a leading axis of tasks, if there are several, divided along them."""
        return self._placed(tree, self._spec("task") if several > 1 else P())

    def batch(self, make: Callable[[int, slice], Any], tasks: int, size: int) -> Any:
        """A batch of each task, stacked if there are several; ``make(task, rows)`` gives rows of a task's batch.

        Only what this process's devices hold is made.
        """
        if self.mesh is None:
            return stacked([make(task, slice(0, size)) for task in range(tasks)])
        spec = P(*(self._spec("task") if tasks > 1 else ()), *self._spec("data"))
        sharding = NamedSharding(self.mesh, spec)
        lead = (tasks, size) if tasks > 1 else (size,)
        held = [index for index in sharding.addressable_devices_indices_map(lead).values() if index is not None]
        own = _united(held, lead)
        of_tasks, rows = own if tasks > 1 else (slice(0, 1), own[0])
        local = stacked([make(task, rows) for task in range(of_tasks.start, of_tasks.stop)], tasks)

        def whole(array: np.ndarray) -> jax.Array:
            shape = (*lead, *array.shape[len(lead) :])
            return jax.make_array_from_process_local_data(sharding, array, shape)

        return jax.tree.map(whole, local)

    def examples(self, tree: Any) -> Any:
        """Examples of one task, divided over all devices."""
        return self._placed(tree, P(tuple(self.mesh.axis_names)) if self.mesh is not None else P())

    def whole(self, tree: Any) -> Any:
        """Arrays that stood in parts, now on every device."""
        return tree if self.mesh is None else _gathered(NamedSharding(self.mesh, P()))(tree)

    def host(self, tree: Any) -> Any:
        """All of it as NumPy arrays, in every process."""
        return jax.tree.map(np.asarray, self.whole(tree))

    def here(self, tree: Any) -> Any:
        """All of it on this process's own first device, as arrays are without a mesh."""
        return tree if self.mesh is None else jax.tree.map(jnp.asarray, self.host(tree))

    def _spec(self, axis: str) -> P:
        return P(axis if self.mesh is not None and axis in self.mesh.axis_names else None)

    def _placed(self, tree: Any, spec: P) -> Any:
        if self.mesh is None:
            return tree
        return jax.tree.map(partial(_put, NamedSharding(self.mesh, spec)), tree)


def _put(sharding: NamedSharding, leaf: Any) -> Any:
    """An array with that sharding; one of this process alone is the same in all of them."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        words = _put(sharding, jax.random.key_data(leaf))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
    if jax.process_count() == 1 or (isinstance(leaf, jax.Array) and not leaf.is_fully_addressable):
        return jax.device_put(leaf, sharding)
    known = np.asarray(leaf)
    return jax.make_array_from_callback(known.shape, sharding, lambda index: known[index])


@cache
def _gathered(sharding: NamedSharding) -> Callable[[Any], Any]:
    """What gives a tree that sharding; one function a mesh, so that trees of one form compile once."""
    return jax.jit(lambda tree: tree, out_shardings=sharding)


def _united(indices: list[tuple[slice, ...]], shape: tuple[int, ...]) -> list[slice]:
    """The slices, one an axis, that hold all of the indices."""
    bounds = [[index[axis].indices(size)[:2] for index in indices] for axis, size in enumerate(shape)]
    return [slice(min(low for low, _ in axis), max(high for _, high in axis)) for axis in bounds]


def stacked(trees: Sequence[Any], several: int | None = None) -> Any:
    """One tree with a leading axis of several; the tree itself where there is one.

    Args:
        several: how many there are in all, where other processes hold the rest.
    """
    if (len(trees) if several is None else several) == 1:
        return trees[0]
    return jax.tree.map(lambda *leaves: (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves), *trees)


def unstacked(tree: Any, several: int) -> list[Any]:
    """Undo :func:`stacked`."""
    return [tree] if several == 1 else [jax.tree.map(lambda a, i=i: a[i], tree) for i in range(several)]
