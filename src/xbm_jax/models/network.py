"""A backbone, split at its edge: the static structure of a Flax NNX module and its arrays by path.

Any NNX module of ``nnx.Conv``, ``nnx.Linear``, ``nnx.LinearGeneral`` (hence ``nnx.MultiHeadAttention``),
``nnx.Einsum``, ``nnx.BatchNorm`` and ``nnx.LayerNorm`` layers will do; what else it holds (a class token, say) stays
digital and frozen. Layers are named by their path, ``"layer1_0/conv1"``; arrays by ``"layer1_0/conv1/kernel"``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.crossbar import Conv
from xbm_jax.errors import ModelError, WeightsError
from xbm_jax.models.names import array_fault

__all__ = [
    "Backbone",
    "Calibration",
    "Network",
    "Preprocess",
    "backbone",
    "check_arrays",
    "conv_geometry",
    "network_from_module",
]


@dataclass(frozen=True)
class Preprocess:
    """From uint8 NHWC images to network inputs: ``(image / divisor - mean) / std``; ``reverse`` turns RGB into BGR."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float = 255.0
    reverse: bool = False

    def __call__(self, images: jax.Array) -> jax.Array:
        x = jnp.asarray(images, jnp.float32)
        x = x[..., ::-1] if self.reverse else x
        # One multiply and one add per pixel.
        scale = 1.0 / (self.divisor * np.asarray(self.std, np.float32))
        shift = -np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return x * scale.astype(np.float32).reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)


@dataclass(frozen=True, eq=False)
class Network:
    """The static half of a backbone; compared by what built it, so that equal networks share compiled code.

    Attributes:
        name: registry name, or the module's class name.
        graphdef: NNX structure.
        shapes: shape of every array, by path.
        kinds: module class of every layer, by path: one of the above.
        convs: geometry of every convolution, by path.
        input_axes: number of input axes of every dense kernel ``[*inputs, *outputs]`` that may have several, by path.
        epsilons: epsilon of every norm, by path.
        head: path of the classifier layer, which each task replaces.
        preprocess: from images to inputs.
        image_size: pixels of the images that the backbone was trained on.
    """

    name: str
    graphdef: Any
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]
    convs: Mapping[str, Conv]
    input_axes: Mapping[str, int]
    epsilons: Mapping[str, float]
    head: str
    preprocess: Preprocess
    image_size: int
    _token: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        content = (self.name, self.graphdef, tuple(self.shapes.items()), self.head, self.preprocess, self.image_size)
        object.__setattr__(self, "_token", hash(content))

    def __hash__(self) -> int:
        return self._token

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Network) or self._token != other._token:
            return False
        names = ("name", "graphdef", "shapes", "head", "preprocess", "image_size")
        return all(getattr(self, n) == getattr(other, n) for n in names)

    @property
    def kernels(self) -> list[str]:
        """Paths of the layers that can sit on a crossbar, sorted; the head last."""
        return [path for path, kind in self.kinds.items() if kind not in ("BatchNorm", "LayerNorm")]

    @property
    def norms(self) -> list[str]:
        """Paths of the norms whose scale and bias a task may own."""
        return [path for path, kind in self.kinds.items() if kind in ("BatchNorm", "LayerNorm")]

    @property
    def batch_norms(self) -> list[str]:
        """Paths of the norms that have running statistics."""
        return [path for path, kind in self.kinds.items() if kind == "BatchNorm"]

    def kernel_shape(self, path: str) -> tuple[int, ...]:
        """Shape in which a layer's kernel goes onto arrays: HWIO, or [in, out] whatever the axes of a dense one."""
        shape, count = self.shapes[f"{path}/kernel"], self.input_axes.get(path)
        return shape if count is None else (math.prod(shape[:count]), math.prod(shape[count:]))

    def module(self, arrays: Mapping[str, jax.Array]) -> nnx.Module:
        """The NNX module with ``arrays`` in it; paths that ``arrays`` lacks hold a scalar placeholder."""
        state = nnx.from_flat_state(
            [(_split(path), nnx.Variable(arrays.get(path, np.zeros(())))) for path in self.shapes]
        )
        return nnx.merge(self.graphdef, state)


@dataclass(frozen=True)
class Calibration:
    """What was measured on the backbone's own training images, so that a chip needs no images to be read.

    Attributes:
        input_peak: largest input of each layer after clipping rare outliers, by path.
        signed: paths whose inputs go below zero.
        adc: ``(low, high)`` of each layer's column sums for the chip of ``spec``, by path.
        spec: JSON-like fields of the spec that ``adc`` was measured with.
        source: the images.
    """

    input_peak: Mapping[str, float]
    signed: frozenset[str]
    adc: Mapping[str, tuple[float, float]]
    spec: Mapping[str, Any]
    source: str


@dataclass(frozen=True)
class Backbone:
    """A pretrained network: structure, float arrays by path, and the measurements that came with its weights."""

    network: Network
    arrays: Mapping[str, jax.Array]
    calibration: Calibration | None = None

    def logits(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Float predictions of the source task, [batch, classes], norms in evaluation mode."""
        return _float_logits(self.network, dict(self.arrays), jnp.asarray(images))

    def kernel(self, path: str) -> jax.Array:
        """A layer's kernel in the shape in which it goes onto arrays."""
        return self.arrays[f"{path}/kernel"].reshape(self.network.kernel_shape(path))

    @property
    def num_parameters(self) -> int:
        """Trainable values: everything but running statistics."""
        counted = [a for p, a in self.arrays.items() if p.rsplit("/", 1)[-1] not in ("mean", "var")]
        return sum(int(np.prod(a.shape)) for a in counted)


def network_from_module(
    build: Callable[[], nnx.Module], *, name: str, head: str, preprocess: Preprocess, image_size: int
) -> Network:
    """The structure of the module that ``build`` makes; called abstractly, so that no weights are drawn."""
    module = nnx.eval_shape(build)
    graphdef, state = nnx.split(module)
    layers = [(p, m) for p, m in nnx.iter_modules(module) if isinstance(m, _LAYERS)]
    paths = {"/".join(map(str, p)): m for p, m in layers}
    if not isinstance(paths.get(head), nnx.Linear):
        linear = [p for p, m in paths.items() if isinstance(m, nnx.Linear)]
        raise ModelError("head", head, "the path of a Linear layer: one of " + ", ".join(linear))
    _check_layers(paths, head)
    return Network(
        name=name,
        graphdef=graphdef,
        shapes={"/".join(map(str, p)): tuple(v.get_value().shape) for p, v in nnx.to_flat_state(state)},
        kinds={p: _kind(m) for p, m in sorted(paths.items(), key=lambda item: (item[0] == head, item[0]))},
        convs={p: conv_geometry(p, m) for p, m in paths.items() if isinstance(m, nnx.Conv)},
        input_axes={p: _input_axes(p, m) for p, m in paths.items() if isinstance(m, _GENERAL)},
        epsilons={p: float(m.epsilon) for p, m in paths.items() if isinstance(m, _NORMS)},
        head=head,
        preprocess=preprocess,
        image_size=image_size,
    )


_NORMS = (nnx.BatchNorm, nnx.LayerNorm)
_GENERAL = (nnx.LinearGeneral, nnx.Einsum)
_LAYERS = (nnx.Conv, nnx.Linear, *_GENERAL, *_NORMS)


def _kind(module: nnx.Module) -> str:
    """The layer's kind, also of a subclass: a user's own ``MyConv(nnx.Conv)`` sits on a crossbar like any other."""
    return next(base.__name__ for base in _LAYERS if isinstance(module, base))


def _check_layers(paths: Mapping[str, Any], head: str) -> None:
    """Raise for a layer that a task could not own: a norm without scale or bias, a head without bias."""
    for path, module in paths.items():
        if isinstance(module, _NORMS) and (module.scale is None or module.bias is None):
            value = f"{_kind(module)} without scale or bias"
            raise ModelError(path, value, "use_scale=True and use_bias=True: tasks learn both")
        if isinstance(module, nnx.LayerNorm) and module.reduction_axes not in (-1, (-1,)):
            raise ModelError(path, module.reduction_axes, "a LayerNorm over the last axis")
        if path == head and module.bias is None:
            raise ModelError(path, "head without bias", "use_bias=True: every task brings its own head")


def backbone(network: Network, arrays: Mapping[str, Any], calibration: Calibration | None = None) -> Backbone:
    """A network with pretrained arrays by path, in Flax's layouts.

    Raises:
        WeightsError: lists every missing, unknown, misshapen or non-finite array at once.
    """
    check_arrays(network.name, network.shapes, arrays)
    return Backbone(network, {p: jnp.asarray(arrays[p], jnp.float32) for p in network.shapes}, calibration)


def check_arrays(name: str, shapes: Mapping[str, tuple[int, ...]], arrays: Mapping[str, Any]) -> None:
    """Raise one error that lists all mismatches between a backbone's arrays and those given."""
    problems = [f"{p} is missing" for p in shapes if p not in arrays]
    problems += [f"{p} is unknown" for p in arrays if p not in shapes]
    for path in shapes.keys() & arrays.keys():
        got = np.shape(arrays[path])
        if got != shapes[path]:
            problems.append(f"{path} has shape {got}, not {shapes[path]}")
        elif fault := array_fault(path, arrays[path]):
            problems.append(f"{path} {fault}")
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise WeightsError("weights", f"{len(problems)} mismatches", f"the arrays of {name}:\n  {listing}")


def conv_geometry(path: str, module: nnx.Conv) -> Conv:
    """The crossbar's geometry of an NNX convolution."""
    if len(module.kernel_size) != 2 or _pair(module.input_dilation) != (1, 1) or module.mask is not None:
        raise ModelError(path, module.kernel_size, "a two-dimensional convolution without input dilation or mask")
    padding: Any = module.padding
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    elif not isinstance(padding, str):
        padding = tuple((p, p) if isinstance(p, int) else tuple(p) for p in padding)
    return Conv(_pair(module.strides), padding, _pair(module.kernel_dilation), int(module.feature_group_count))


def _input_axes(path: str, module: nnx.LinearGeneral | nnx.Einsum) -> int:
    """Number of input axes of a general dense layer; they have to be the last ones of its input, in order."""
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


def _pair(value: Any) -> tuple[int, int]:
    return (1, 1) if value is None else (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _split(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in path.split("/"))


def _float_forward(network: Network, arrays: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    module = network.module(arrays)
    module.eval()
    return module(network.preprocess(images))  # type: ignore[operator]  # nnx.Module has no __call__


_float_logits = jax.jit(_float_forward, static_argnums=0)
