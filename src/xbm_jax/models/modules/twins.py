"""The NNX layer that computes what a Linen layer does: of the same kind, with the same options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from flax import nnx
from flax.linen import dtypes

__all__ = ["twin", "twin_kind"]

_SHARED = ("dtype", "param_dtype", "precision", "promote_dtype", "preferred_element_type")
_NORM = ("epsilon", "use_bias", "use_scale", "axis_name", "axis_index_groups", "use_fast_variance", "dtype")
_OTHERS = ("dot_general", "dot_general_cls", "conv_general_dilated", "conv_general_dilated_cls")
_CONV = ("kernel_size", "strides", "padding", "kernel_dilation", "mask")

_TWINS: dict[type[nn.Module], type] = {
    nn.Dense: nnx.Linear,
    nn.DenseGeneral: nnx.LinearGeneral,
    nn.Einsum: nnx.Einsum,
    nn.Conv: nnx.Conv,
    nn.ConvTranspose: nnx.ConvTranspose,
    nn.BatchNorm: nnx.BatchNorm,
    nn.LayerNorm: nnx.LayerNorm,
    nn.RMSNorm: nnx.RMSNorm,
    nn.GroupNorm: nnx.GroupNorm,
}


def twin_kind(layer: nn.Module) -> type | None:
    """The class of a layer's twin; ``None`` for what is no layer, or computes otherwise."""
    base = next((base for base in _TWINS if isinstance(layer, base)), None)
    if base is None or type(layer).__call__ is not base.__call__:
        return None
    return _TWINS[base]


def twin(layer: Any, arrays: Mapping[str, Any]) -> Any:
    """The twin of a layer whose arrays have the shapes of ``arrays``, by name."""
    kind = twin_kind(layer)
    shape = next((tuple(arrays[name].shape) for name in ("kernel", "scale", "mean", "bias") if name in arrays), ())
    if kind in (nnx.BatchNorm, nnx.LayerNorm, nnx.RMSNorm, nnx.GroupNorm):
        return _norm(layer, kind, shape[0] if shape else 1)
    options = {name: getattr(layer, name) for name in _SHARED if getattr(layer, name, None) is not None}
    if options.get("promote_dtype") is dtypes.promote_dtype:  # Linen's; NNX has the same by its own name
        options.pop("promote_dtype")
    options["rngs"] = nnx.Rngs(0)
    if kind is nnx.Einsum:
        made: Any = nnx.Einsum(layer.einsum_str, shape, arrays["bias"].shape if "bias" in arrays else None, **options)
    elif kind is nnx.LinearGeneral:
        made = _dense(layer, shape, options)
    elif kind is nnx.Linear:
        made = nnx.Linear(*shape, use_bias=layer.use_bias, **options)
    else:
        made = _convolution(layer, kind, shape, options)
    for name in _OTHERS:  # what stands for the layer's own product, which a chip does not compute
        if (value := getattr(layer, name, None)) is not None:
            setattr(made, name.removesuffix("_cls"), value)
    return made


def _dense(layer: Any, shape: tuple[int, ...], options: dict[str, Any]) -> Any:
    outputs = _tuple(layer.features)
    batch = dict(zip(_tuple(layer.batch_dims), shape, strict=False))
    inputs = shape[len(batch) : len(shape) - len(outputs)]
    options |= {"axis": _tuple(layer.axis), "batch_axis": batch, "use_bias": layer.use_bias}
    return nnx.LinearGeneral(inputs, outputs, **options)


def _convolution(layer: Any, kind: Any, shape: tuple[int, ...], options: dict[str, Any]) -> Any:
    options |= {name: _plain(getattr(layer, name)) for name in _CONV} | {"use_bias": layer.use_bias}
    inputs, outputs = shape[-2:]
    if kind is nnx.Conv:
        options |= {"input_dilation": _plain(layer.input_dilation), "feature_group_count": layer.feature_group_count}
        inputs *= layer.feature_group_count
    else:
        options["transpose_kernel"] = layer.transpose_kernel
        inputs, outputs = (outputs, inputs) if layer.transpose_kernel else (inputs, outputs)
    return kind(inputs, outputs, **options)


def _norm(layer: Any, kind: Any, features: int) -> Any:
    options: dict[str, Any] = {name: getattr(layer, name) for name in _NORM if hasattr(layer, name)}
    options["rngs"] = nnx.Rngs(0)
    if kind is nnx.BatchNorm:
        return kind(features, axis=layer.axis, momentum=layer.momentum, use_running_average=True, **options)
    if kind is nnx.GroupNorm:
        size, groups = layer.group_size, None if layer.group_size else layer.num_groups
        return kind(features, groups, size, reduction_axes=_plain(layer.reduction_axes), **options)
    axes = {name: _plain(getattr(layer, name)) for name in ("reduction_axes", "feature_axes")}
    return kind(features, **axes, **options)


def _tuple(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _plain(value: Any) -> Any:
    """Sequences as tuples, which can be hashed."""
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
