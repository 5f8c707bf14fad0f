"""What a network is given: uint8 images, or any pytree of arrays with a leading axis of examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from xbm_jax.errors import DataError, ModelError
from xbm_jax.pixels import check_uint8, warn_if_binary

__all__ = ["InputSpec", "call", "check_image_inputs"]


@dataclass(frozen=True)
class InputSpec:
    """Shape and dtype of every array of one example, without the batch axis; hashable.

    Args:
        structure: the pytree's.
        arrays: ``(shape, dtype name)`` of each leaf.
    """

    structure: Any
    arrays: tuple[tuple[tuple[int, ...], str], ...]

    @classmethod
    def of(cls, example: Any) -> InputSpec:
        """The spec of ``example``, a pytree of arrays or of ``jax.ShapeDtypeStruct``, none with a batch axis."""
        leaves, structure = jax.tree.flatten(example)
        if not leaves or not all(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves):
            raise ModelError("inputs", example, "arrays of one example, or jax.ShapeDtypeStruct, perhaps in a pytree")
        return cls(structure, tuple((tuple(leaf.shape), str(np.dtype(leaf.dtype))) for leaf in leaves))

    def batch(self, size: int) -> Any:
        """The shapes and dtypes of ``size`` examples."""
        leaves = [jax.ShapeDtypeStruct((size, *shape), dtype) for shape, dtype in self.arrays]
        return jax.tree.unflatten(self.structure, leaves)

    def check(self, inputs: Any) -> Any:
        """``inputs`` as NumPy arrays if they are examples of this kind; else raise DataError."""
        leaves, structure = jax.tree.flatten(inputs)
        if structure != self.structure:
            raise DataError("inputs", str(structure), f"{self.structure}, the arrays that the network takes")
        for (path, leaf), (shape, dtype) in zip(
            jax.tree_util.tree_flatten_with_path(inputs)[0], self.arrays, strict=True
        ):
            name, array = f"inputs{jax.tree_util.keystr(path)}", np.asarray(leaf)
            if array.shape[1:] != shape or array.ndim != len(shape) + 1 or str(array.dtype) != dtype:
                raise DataError(name, f"{array.dtype}{list(array.shape)}", f"{dtype}{['n', *shape]}")
            if np.issubdtype(array.dtype, np.inexact) and not np.isfinite(array).all():
                raise DataError(name, "NaN or infinity", "finite numbers")
            if len(array) != len(np.asarray(leaves[0])):
                raise DataError(name, f"{len(array)} examples", f"{len(np.asarray(leaves[0]))}, as many as the others")
        return jax.tree.map(np.asarray, inputs)


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
