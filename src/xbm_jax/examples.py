"""Examples: any pytree of arrays with a leading axis, counted, taken and checked in one place."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from xbm_jax.errors import DataError

__all__ = ["check_alike", "check_arrays", "check_targets", "chosen", "count", "take"]


def count(examples: Any) -> int:
    """How many examples there are."""
    return len(jax.tree.leaves(examples)[0])


def take(examples: Any, index: Any) -> Any:
    """The examples of an index, a mask or a slice."""
    return jax.tree.map(lambda array: array[index], examples)


def chosen(examples: Any, index: Any) -> Any:
    """The examples of an index or a mask, to be taken later: what stays on disk still does."""
    return jax.tree.map(lambda array: array.only(index) if hasattr(array, "only") else array[index], examples)


def check_arrays(field: str, examples: Any) -> Any:
    """The pytree with NumPy arrays, if all have as many examples, at least one, of finite numbers; else DataError."""
    leaves = jax.tree_util.tree_flatten_with_path(examples)[0]
    if not leaves:
        raise DataError(field, examples, "arrays, perhaps in a pytree")
    arrays = {field + jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        _check_numbers(name, array)
        if not array.ndim or not len(array):
            raise DataError(f"{name}.shape", array.shape, "at least one example, on the first axis")
        if len(array) != len(first):
            raise DataError(f"len({name})", len(array), f"{len(first)}, as many examples as in the first array")
    return jax.tree.map(np.asarray, examples)


def check_targets(field: str, targets: Any, examples_field: str, examples: int) -> np.ndarray:
    """Targets of any kind as an array [n, ...]; raises DataError unless there is one for each example."""
    array = np.asarray(targets)
    _check_numbers(field, array)
    if not array.ndim or len(array) != examples:
        found = len(array) if array.ndim else "a single number"
        raise DataError(f"len({field})", found, f"{examples}, the number of examples in {examples_field}")
    return array


def check_alike(train: Any, test: Any) -> None:
    """Raise DataError unless test examples have the structure, shapes and dtypes of the training examples."""
    if jax.tree.structure(train) != jax.tree.structure(test):
        raise DataError("x_test", "another structure", f"the structure of x_train, {jax.tree.structure(train)}")
    pairs = zip(jax.tree_util.tree_flatten_with_path(test)[0], jax.tree.leaves(train), strict=True)
    for (path, got), wanted in pairs:
        name = f"x_test{jax.tree_util.keystr(path)}"
        if got.shape[1:] != wanted.shape[1:]:
            allowed = f"the shape of the training examples, {wanted.shape[1:]}"
            raise DataError(f"{name}.shape[1:]", got.shape[1:], allowed)
        if got.dtype != wanted.dtype:
            raise DataError(f"{name}.dtype", str(got.dtype), f"{wanted.dtype}, as in the training examples")


def _check_numbers(field: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "biuf":
        raise DataError(f"{field}.dtype", str(array.dtype), "numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(field, "NaN or infinity", "finite numbers")
