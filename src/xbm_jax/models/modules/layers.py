"""The layers that a chip knows: their kinds, their geometry, and which of their options a chip computes.

``nnx.Conv`` and ``nnx.ConvTranspose`` (of one to three dimensions), ``nnx.Linear``, ``nnx.LinearGeneral`` and
``nnx.Einsum`` sit on crossbars; ``nnx.BatchNorm``, ``nnx.LayerNorm``, ``nnx.RMSNorm`` and ``nnx.GroupNorm`` are norms
that a task may own. A subclass counts as its base unless its ``__call__`` is its own: then nothing here knows what it
computes, and like any other module it stays digital. So do a norm with neither scale nor bias, and a transposed
convolution that wraps around or is masked.

This module is where a kind is added: a row of ``_KINDS``, and :func:`form_of` where its kernel is not a plain HWIO or
[in, out] (:mod:`~xbm_jax.models.modules.forms`). One that is made of layers known here needs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.nnx.nn import dtypes

from xbm_jax.crossbar import Conv
from xbm_jax.errors import ModelError, SpecError
from xbm_jax.models.modules.forms import Axes, Equation, Form, Spatial, transposed_padding

__all__ = ["FLAX_NORMS", "NORM_KINDS", "arrays_of", "check_layer", "form_of", "kind_of", "layers", "norm_axis"]
__all__ += ["reduced_axes", "register_layer"]

_NORMS = (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm)
_KINDS: dict[type, int | None] = {
    nnx.Conv: None,
    nnx.ConvTranspose: None,
    nnx.Linear: 2,
    nnx.LinearGeneral: None,
    nnx.Einsum: None,
    **dict.fromkeys(_NORMS, 1),
}
"""Axes of each kind's first array; ``None``: as many as the layer's own options say."""
NORM_KINDS = tuple(kind.__name__ for kind in _NORMS)
FLAX_NORMS: dict[str, Any] = {kind.__name__: kind for kind in (nnx.RMSNorm, nnx.GroupNorm)}
"""Norms that Flax's own layers compute, the task's arrays in them, whatever their axes and groups."""

_ORDINARY = {
    "promote_dtype": (dtypes.promote_dtype,),
    "conv_general_dilated": (jax.lax.conv_general_dilated,),
    "dot_general": (jax.lax.dot_general, None),
    "dot_general_cls": (None,),
    "einsum_op": (jnp.einsum,),
    "axis_index_groups": (None,),
}
"""Options that put another function, or another set of examples, in the place of what a layer usually computes."""


_OWN: dict[type, Callable[[Any], Form]] = {}
"""Kinds of users, and what gives the form of one's layers."""


def register_layer(kind: type[nnx.Module], form: Callable[[Any], Form]) -> None:
    """Let layers of a user's own class go onto arrays.

    Such a layer holds one ``kernel`` and perhaps a ``bias``, and answers to one array of features. ``form`` gives for a
    layer what becomes of its kernel, inputs and answer: a :class:`~xbm_jax.models.modules.forms.Form`, or one of a
    subclass. A chip that is loaded from a file has to have the class registered before.

    Raises:
        ModelError: what is no class of NNX modules, or the name of another kind.
    """
    if not (isinstance(kind, type) and issubclass(kind, nnx.Module)):
        raise ModelError("kind", kind, "a class of NNX modules")
    taken = {base.__name__ for base in _KINDS} | {own.__name__ for own in _OWN if own.__qualname__ != kind.__qualname__}
    if kind.__name__ in taken:
        raise ModelError("kind", kind.__name__, "a name that no kind has: " + ", ".join(sorted(taken)))
    _OWN[kind] = form


def kind_of(module: Any) -> str | None:
    """The kind of a layer, ``None`` for any other module."""
    if type(module) in _OWN:
        return type(module).__name__
    found = next((base for base in _KINDS if isinstance(module, base)), None)
    if found is None or type(module).__call__ is not found.__call__ or _without(module):
        return None
    return found.__name__


def _without(module: Any) -> bool:
    """Whether a layer of a known kind computes what has no form here; the module computes it, digitally."""
    odd = isinstance(module, nnx.ConvTranspose) and (module.padding == "CIRCULAR" or module.mask is not None)
    bare = isinstance(module, _NORMS[1:]) and module.scale is None and getattr(module, "bias", None) is None
    return odd or bare


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
    if type(module) in _OWN:
        form_of(path, module)
        return
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
    form_of(path, module)
    expected = next(axes for base, axes in _KINDS.items() if base.__name__ == kind) or _axes(module)
    if len(first) != expected:
        raise ModelError(path, first, f"one {kind} with an array of {expected} axes, not layers that are stacked")


def _check_norm(path: str, module: Any) -> None:
    kind = kind_of(module)
    if kind == "BatchNorm" and (module.scale is None or module.bias is None):
        raise ModelError(path, f"{kind} without scale or bias", "use_scale=True and use_bias=True: tasks learn both")
    if not _number(module.epsilon) or module.epsilon < 0:
        raise ModelError(f"{path}.epsilon", module.epsilon, "a number from 0")
    if kind == "BatchNorm" and not (_number(module.momentum) and 0 <= module.momentum < 1):
        raise ModelError(f"{path}.momentum", module.momentum, "a number from 0, below 1")
    if kind != "BatchNorm" and module.axis_name is not None:
        raise ModelError(f"{path}.axis_name", module.axis_name, "None: a chip reads all features in one place")
    norm_axis(path, module)


def norm_axis(path: str, module: Any) -> int:
    """The axis that a norm has a scale and bias along; a LayerNorm normalises over that one too.

    Of norms that Flax computes it is not asked for: -1.

    Raises:
        ModelError: several axes, or features other than those that are reduced.
    """
    kind = kind_of(module)
    if kind in FLAX_NORMS:
        return -1
    names = ("axis",) if kind == "BatchNorm" else ("reduction_axes", "feature_axes")
    given = [getattr(module, name) for name in names]
    axes = {axis for value in given for axis in (value if isinstance(value, list | tuple) else (value,))}
    if len(axes) != 1:
        value = ", ".join(f"{name}={value!r}" for name, value in zip(names, given, strict=True))
        raise ModelError(path, value, f"a {kind} over one axis")
    return int(axes.pop())


def reduced_axes(path: str, module: Any) -> tuple[int, ...]:
    """Axes of a norm that no example may share with another: those that it reduces, or has arrays along."""
    if kind_of(module) not in FLAX_NORMS:
        return (norm_axis(path, module),)
    given = (module.reduction_axes, getattr(module, "feature_axes", None))
    return tuple(int(axis) for axes in given if axes is not None for axis in np.atleast_1d(axes))


def form_of(path: str, module: Any) -> Form:
    """How a layer's product goes onto arrays.

    Raises:
        ModelError: names what of it no arrays compute.
    """
    if type(module) in _OWN:
        form = _OWN[type(module)](module)
        if not isinstance(form, Form) or "kernel" not in arrays_of(module):
            raise ModelError(path, type(module).__name__, "a layer with a kernel, and a Form of it as registered")
        return form
    if isinstance(module, nnx.Conv | nnx.ConvTranspose):
        return _conv_form(path, module)
    if isinstance(module, nnx.Einsum):
        return _einsum_form(path, module)
    if isinstance(module, nnx.LinearGeneral):
        axes = module.axis if isinstance(module.axis, tuple) else (module.axis,)
        if module.batch_axis:
            raise ModelError(path, f"batch_axis={module.batch_axis}", f"none: {_OWN_KERNELS}")
        return Axes(axes=tuple(map(int, axes)), kernel_shape=_general_shape(module))
    return Form()


_OWN_KERNELS = "a kernel of its own for each entry of an axis is many layers, not one on arrays"


def _einsum_form(path: str, module: nnx.Einsum) -> Form:
    equation = module.einsum_str.replace(" ", "")
    inputs, kernel, outputs = re.split(",|->", equation)
    if set(inputs) & set(kernel) & set(outputs) - {"."}:
        raise ModelError(path, equation, f"no letter in all three parts: {_OWN_KERNELS}")
    form = Equation(inputs=inputs, kernel=kernel, outputs=outputs, kernel_shape=_general_shape(module))
    if not form.dense:
        raise ModelError(path, equation, "an equation like '...ab,abcd->...cd': a dense layer")
    return form


def _conv_form(path: str, module: Any) -> Form:
    try:
        if module.mask is not None:
            raise ValueError("a masked kernel: multiply it into the weights, which are frozen")
        return _spatial(module)
    except (SpecError, TypeError, ValueError) as error:
        value = f"strides={module.strides}, padding={module.padding!r}, kernel_dilation={module.kernel_dilation}"
        raise ModelError(path, value, f"a convolution that a crossbar computes ({error})") from error


def _spatial(module: Any) -> Form:
    rank, taps = len(module.kernel_size), tuple(map(int, module.kernel_size))
    strides, dilation = (_each(given, rank) for given in (module.strides, module.kernel_dilation))
    window = [(size - 1) * step + 1 for size, step in zip(taps, dilation, strict=True)]
    padding, mode = _padding(module.padding, rank, window)
    shared = {"rank": rank, "dilation": dilation, "taps": taps}
    if not 1 <= rank <= 3:
        raise ValueError(f"{rank} dimensions, not 1, 2 or 3")
    if isinstance(module, nnx.ConvTranspose):
        if padding in ("SAME", "VALID"):
            sizes = zip(window, strides, strict=True)
            padding = tuple(transposed_padding(size, stride, padding) for size, stride in sizes)
        turned = {"spread": strides, "turned": bool(module.transpose_kernel)}
        return Spatial(strides=(1,) * rank, padding=padding, **turned, **shared)
    spread, groups = _each(module.input_dilation, rank), int(module.feature_group_count)
    negative = not isinstance(padding, str) and any(side < 0 for pair in padding for side in pair)
    plain = rank == 2 and spread == (1, 1) and mode is None and not negative and padding != "SAME_LOWER"
    if plain:
        return Form(Conv(strides, padding, dilation, groups))  # type: ignore[arg-type]  # two of each
    return Spatial(strides=strides, padding=padding, mode=mode, spread=spread, groups=groups, **shared)


def _padding(given: Any, rank: int, window: list[int]) -> tuple[Any, str | None]:
    """Flax's padding as ``(low, high)`` of each dimension or XLA's name for it, and the mode of one without zeros."""
    if given in ("CIRCULAR", "REFLECT"):
        return tuple(((size - 1) // 2, size // 2) for size in window), {"C": "wrap", "R": "reflect"}[given[0]]
    if given == "CAUSAL":
        if rank != 1:
            raise ValueError("CAUSAL is for one dimension")
        return ((window[0] - 1, 0),), None
    if isinstance(given, str):
        if given.upper() not in ("SAME", "VALID", "SAME_LOWER"):
            raise ValueError(f"no padding is called {given}")
        return given.upper(), None
    pairs = (given,) * rank if isinstance(given, int) else given
    pairs = tuple((p, p) if isinstance(p, int) else tuple(map(int, p)) for p in pairs)
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"not {rank} pairs")
    return pairs, None


def _axes(module: Any) -> int:
    convolution = isinstance(module, nnx.Conv | nnx.ConvTranspose)
    return len(module.kernel_size) + 2 if convolution else len(_general_shape(module))


def _general_shape(module: Any) -> tuple[int, ...]:
    if isinstance(module, nnx.Einsum):
        return tuple(module.kernel_shape)
    return (*module.in_features, *module.out_features)


def _number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _each(value: Any, rank: int) -> tuple[int, ...]:
    """One number of each dimension."""
    if value is None or np.ndim(value) == 0:
        return (1 if value is None else int(value),) * rank
    numbers = tuple(map(int, value))
    if len(numbers) != rank:
        raise ValueError(f"{len(numbers)} numbers for {rank} dimensions")
    return numbers
