"""What a network is given: uint8 images, or any pytree of arrays with a leading axis of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from xbm_jax.crossbar.validate import check_int
from xbm_jax.errors import DataError, ModelError
from xbm_jax.pixels import check_uint8, warn_if_binary

__all__ = ["InputSpec", "call", "check_image_inputs"]

_ANY = 7
"""Length of an axis that may have any, where a module is tried."""


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype of every array of one example, without the batch axis; hashable.

    Args:
        structure: the pytree's.
        arrays: ``(shape, dtype name)`` of each leaf; an axis of length ``None`` may be of any, the same in all arrays.
        mask: key of the array, bool [positions] an example, that says which positions are real; what is padding does
            not count where a chip is calibrated or inspected. ``None``: all are.
        below: ``(key, number)``: arrays of whole numbers from 0 to below that, entries of an embedding say. On an
            accelerator a wrong one is no error: it reads another entry, or NaN.
    """

    structure: Any
    arrays: tuple[tuple[tuple[int | None, ...], str], ...]
    mask: str | None = None
    below: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(
        cls,
        example: Any,
        *,
        free: tuple[int, ...] = (),
        mask: str | None = None,
        below: Mapping[str, int] | None = None,
    ) -> InputSpec:
        """The spec of ``example``, a pytree of arrays or of ``jax.ShapeDtypeStruct``, none with a batch axis.

        Args:
            free: axes, the batch's not counted, whose length may be another one in every batch.
            mask, below: see above.

        Raises:
            ModelError: no arrays, a mask that is no boolean array of a dictionary, or bounds of none of whole numbers.
        """
        if isinstance(example, InputSpec):
            return example
        leaves, structure = jax.tree.flatten(example)
        if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
            raise ModelError("inputs", example, "arrays of one example, or jax.ShapeDtypeStruct, perhaps in a pytree")
        masked = example.get(mask) if isinstance(example, dict) else None
        if mask is not None and (masked is None or masked.dtype != bool):
            raise ModelError("mask", mask, "the key of a boolean array, in inputs that are a dictionary")
        for key, size in (below or {}).items():
            bounded = example.get(key) if isinstance(example, dict) else None
            if bounded is None or not np.issubdtype(bounded.dtype, np.integer):
                raise ModelError("below", key, "the key of an array of whole numbers, in inputs that are a dictionary")
            check_int(f"below[{key!r}]", size, 1, 2**31 - 1)
        shapes = [tuple(None if axis in free else size for axis, size in enumerate(leaf.shape)) for leaf in leaves]
        dtypes = [str(np.dtype(leaf.dtype)) for leaf in leaves]
        return cls(structure, tuple(zip(shapes, dtypes, strict=True)), mask, tuple(sorted((below or {}).items())))

    def batch(self, size: int) -> Any:
        """The shapes and dtypes of ``size`` examples, free axes as long as any other number."""
        shapes = [(size, *(_ANY if axis is None else axis for axis in shape)) for shape, _ in self.arrays]
        leaves = [jax.ShapeDtypeStruct(shape, dtype) for shape, (_, dtype) in zip(shapes, self.arrays, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)

    def check(self, inputs: Any) -> Any:
        """``inputs`` as NumPy arrays if they are examples of this kind; else raise DataError."""
        leaves, structure = jax.tree.flatten(inputs)
        if structure != self.structure:
            raise DataError("inputs", str(structure), f"{self.structure}, the arrays that the network takes")
        any_length = None
        for (path, leaf), (shape, dtype) in zip(
            jax.tree_util.tree_flatten_with_path(inputs)[0], self.arrays, strict=True
        ):
            name, array = f"inputs{jax.tree_util.keystr(path)}", np.asarray(leaf)
            if array.ndim == len(shape) + 1:
                lengths = (size for size, axis in zip(array.shape[1:], shape, strict=True) if axis is None)
                any_length = next(lengths, None) if any_length is None else any_length
            wanted = tuple(any_length if axis is None else axis for axis in shape)
            if array.shape[1:] != wanted or array.ndim != len(shape) + 1 or str(array.dtype) != dtype:
                shown = ["n", *("any" if axis is None else axis for axis in wanted)]
                raise DataError(name, f"{array.dtype}{list(array.shape)}", f"{dtype}{shown}")
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                raise DataError(name, "NaN or infinity", "finite numbers")
            if len(array) != len(np.asarray(leaves[0])):
                raise DataError(name, f"{len(array)} examples", f"{len(np.asarray(leaves[0]))}, as many as the others")
        self._check_bounds(inputs)
        return jax.tree.map(np.asarray, inputs)

    def _check_bounds(self, inputs: Any) -> None:
        """Raise for whole numbers outside of their range."""
        for key, size in self.below:
            array = np.asarray(inputs[key])
            wrong = np.argwhere((array < 0) | (array >= size))
            if len(wrong):
                value = f"{array[tuple(wrong[0])]} in example {wrong[0][0]} ({len(wrong)} such)"
                raise DataError(f"inputs['{key}']", value, f"0..{size - 1}: the network has no entry for others")

    def real(self, inputs: Any) -> Any:
        """Which positions of each example are no padding, bool [n, positions]; ``None``: all."""
        return None if self.mask is None else inputs[self.mask]


def check_image_inputs(images: Any, channels: int) -> np.ndarray:
    """``images`` as an array if they are uint8 [n, H, W, channels]; else raise DataError.

    Floats and other integers are refused, as a data set refuses them: no range is guessed.
    """
    if isinstance(images, Tracer):
        raise DataError("images", "traced by JAX", "an array; inside jit, grad and vmap use models.forward")
    try:
        array = np.asarray(images)
    except ValueError as error:
        raise DataError("images", "several shapes in one list", "one array, all images of one size") from error
    if array.ndim != 4 or array.shape[-1] != channels:
        raise DataError("images.shape", array.shape, f"[n, height, width, {channels}]")
    check_uint8("images", array)
    warn_if_binary("images", array)
    return array


def call(module: Any, inputs: Any) -> jax.Array:
    """The module's answer: a tuple of inputs is its arguments, a dictionary its keywords, all else its one argument."""
    match inputs:
        case tuple():
            return module(*inputs)
        case dict():
            return module(**inputs)
    return module(inputs)
