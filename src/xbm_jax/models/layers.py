"""The layers that a chip knows: their kinds, their geometry, and which of their options a chip computes.

``nnx.Conv`` (two-dimensional), ``nnx.Linear``, ``nnx.LinearGeneral`` and ``nnx.Einsum`` sit on crossbars;
``nnx.BatchNorm`` and ``nnx.LayerNorm`` are norms that a task may own. A subclass counts as its base unless its
``__call__`` is its own: then nothing here knows what it computes, and like any other module it stays digital.

This module is where a kind is added: a row of ``_KINDS``, and :func:`conv_geometry` or :func:`input_axes` where its
kernel is not a plain HWIO or [in, out]. A layer that is made of layers known here needs nothing: each has its own path.
"""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes

from xbm_jax.crossbar import Conv
from xbm_jax.errors import ModelError, SpecError

__all__ = ["NORM_KINDS", "arrays_of", "check_layer", "conv_geometry", "input_axes", "kind_of", "layers", "norm_axis"]

_NORMS = (nnx.BatchNorm, nnx.LayerNorm)
_KINDS: dict[type, int | None] = {
    nnx.Conv: 4,
    nnx.Linear: 2,
    nnx.LinearGeneral: None,
    nnx.Einsum: None,
    **dict.fromkeys(_NORMS, 1),
}
"""Axes of each kind's first array; ``None``: as many as a dense layer's inputs and outputs have."""
NORM_KINDS = tuple(kind.__name__ for kind in _NORMS)

_ORDINARY = {
    "promote_dtype": (dtypes.promote_dtype,),
    "conv_general_dilated": (jax.lax.conv_general_dilated,),
    "dot_general": (jax.lax.dot_general, None),
    "dot_general_cls": (None,),
    "einsum_op": (jnp.einsum,),
    "axis_index_groups": (None,),
}
"""Options that put another function, or another set of examples, in the place of what a layer usually computes."""


def kind_of(module: Any) -> str | None:
    """The kind of a layer, ``None`` for any other module."""
    found = next((base for base in _KINDS if isinstance(module, base)), None)
    return None if found is None or type(module).__call__ is not found.__call__ else found.__name__


def layers(module: nnx.Module) -> dict[str, Any]:
    """The layers below a module, by path; one that has several names goes by the first."""
    return {"/".join(map(str, p)): m for p, m in nnx.iter_modules(module) if kind_of(m) is not None}


def arrays_of(module: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a layer's arrays."""
    names = ("kernel", "bias", "scale", "mean", "var")
    found = {name: getattr(module, name, None) for name in names}
    return {name: tuple(held.shape) for name, held in found.items() if held is not None}


def check_layer(path: str, module: Any) -> None:
    """Raise ModelError for a layer whose options a chip does not compute, or that a task could not own."""
    kind = kind_of(module)
    if kind in NORM_KINDS:
        _check_norm(path, module)
    for name, ordinary in _ORDINARY.items():
        value = getattr(module, name, ordinary[0])
        if not any(value is usual for usual in ordinary):
            raise ModelError(f"{path}.{name}", value, f"the {kind}'s own {name}: a chip computes no other")
    held = {name: getattr(module, name, None) for name in ("dtype", "preferred_element_type")}
    held |= {f"{name}.dtype": getattr(module, name).get_value().dtype for name in arrays_of(module)}
    for name, dtype in held.items():
        if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
            raise ModelError(f"{path}.{name}", jnp.dtype(dtype).name, "a floating dtype")
    first = next(iter(arrays_of(module).values()))
    conv_geometry(path, module)
    input_axes(path, module)
    expected = next(axes for base, axes in _KINDS.items() if base.__name__ == kind) or len(_general_shape(module))
    if len(first) != expected:
        raise ModelError(path, first, f"one {kind} with an array of {expected} axes, not layers that are stacked")


def _check_norm(path: str, module: Any) -> None:
    kind = kind_of(module)
    if module.scale is None or module.bias is None:
        raise ModelError(path, f"{kind} without scale or bias", "use_scale=True and use_bias=True: tasks learn both")
    if not _number(module.epsilon) or module.epsilon < 0:
        raise ModelError(f"{path}.epsilon", module.epsilon, "a number from 0")
    if kind == "BatchNorm" and not (_number(module.momentum) and 0 <= module.momentum < 1):
        raise ModelError(f"{path}.momentum", module.momentum, "a number from 0, below 1")
    if kind == "LayerNorm" and module.axis_name is not None:
        raise ModelError(f"{path}.axis_name", module.axis_name, "None: a chip reads all features in one place")
    norm_axis(path, module)


def norm_axis(path: str, module: Any) -> int:
    """The axis that a norm has a scale and bias along; a LayerNorm normalises over that one too.

    Raises:
        ModelError: several axes, or features other than those that are reduced.
    """
    kind = kind_of(module)
    names = ("axis",) if kind == "BatchNorm" else ("reduction_axes", "feature_axes")
    given = [getattr(module, name) for name in names]
    axes = {axis for value in given for axis in (value if isinstance(value, list | tuple) else (value,))}
    if len(axes) != 1:
        value = ", ".join(f"{name}={value!r}" for name, value in zip(names, given, strict=True))
        raise ModelError(path, value, f"a {kind} over one axis")
    return int(axes.pop())


def conv_geometry(path: str, module: Any) -> Conv | None:
    """The crossbar's geometry of a convolution; ``None`` for other layers."""
    if not isinstance(module, nnx.Conv):
        return None
    plain = len(module.kernel_size) == 2 and _pair(module.input_dilation) == (1, 1) and module.mask is None
    if not plain:
        raise ModelError(path, module.kernel_size, "a two-dimensional convolution without input dilation or mask")
    padding: Any = module.padding
    try:
        if isinstance(padding, str):
            padding = padding.upper()
        elif isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        else:
            padding = tuple((p, p) if isinstance(p, int) else tuple(map(int, p)) for p in padding)
        return Conv(_pair(module.strides), padding, _pair(module.kernel_dilation), int(module.feature_group_count))
    except (SpecError, TypeError, ValueError) as error:
        value = f"strides={module.strides}, padding={module.padding!r}, kernel_dilation={module.kernel_dilation}"
        raise ModelError(path, value, f"a convolution that a crossbar computes ({error})") from error


def input_axes(path: str, module: Any) -> int | None:
    """Number of input axes of a general dense layer, the last ones of its input, in order; ``None`` for others."""
    if not isinstance(module, nnx.LinearGeneral | nnx.Einsum):
        return None
    if isinstance(module, nnx.Einsum):
        inputs, kernel, outputs = re.split(",|->", module.einsum_str)
        count = len(set(kernel) - set(outputs))
        outer = inputs.removesuffix(kernel[:count])
        if count and inputs == outer + kernel[:count] and outputs == outer + kernel[count:]:
            return count
        raise ModelError(path, module.einsum_str, "an equation like '...ab,abcd->...cd': a dense layer")
    axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
    if tuple(axes) != tuple(range(-len(axes), 0)) or module.batch_axis:
        raise ModelError(path, module.axis, "a LinearGeneral over the last axes, without batch axes")
    return len(axes)


def _general_shape(module: Any) -> tuple[int, ...]:
    if isinstance(module, nnx.Einsum):
        return tuple(module.kernel_shape)
    return (*module.in_features, *module.out_features)


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _pair(value: Any) -> tuple[int, int]:
    if value is None or np.ndim(value) == 0:
        both = 1 if value is None else int(value)
        return both, both
    first, second = value
    return int(first), int(second)
