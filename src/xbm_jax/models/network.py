"""A backbone, split at its edge: the static structure of a Flax NNX module and its arrays by path.

Any NNX module of ``nnx.Conv``, ``nnx.Linear``, ``nnx.LinearGeneral`` (hence ``nnx.MultiHeadAttention``),
``nnx.Einsum``, ``nnx.BatchNorm`` and ``nnx.LayerNorm`` layers will do; what else it holds (a class token, an
``nnx.ConvTranspose``, a layer that it never calls) stays digital and frozen. Layers are named by their path,
``"layer1_0/conv1"``; arrays by ``"layer1_0/conv1/kernel"``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.crossbar import Conv
from xbm_jax.errors import ModelError, WeightsError, XbmError
from xbm_jax.models.layers import (
    NORM_KINDS,
    arrays_of,
    check_layer,
    conv_geometry,
    input_axes,
    kind_of,
    layers,
    norm_axis,
)
from xbm_jax.models.names import array_fault
from xbm_jax.models.preprocess import Preprocess
from xbm_jax.models.structure import Leaf, assemble, check_names, key_orders, leaves_of
from xbm_jax.models.trial import called_layers

__all__ = [
    "Backbone",
    "Calibration",
    "Network",
    "backbone",
    "check_arrays",
    "network_from_module",
    "structure_of",
]


@dataclass(frozen=True, eq=False)
class Network:
    """The static half of a backbone; compared by what built it, so that equal networks share compiled code.

    Attributes:
        name: registry name, or the module's class name.
        graphdef: NNX structure.
        leaves: every array of the module, random state included, by path.
        orders: keys of the module's dictionaries that are not sorted, by route.
        shapes: shape of every array that weights are loaded for, by path.
        kinds: module class of every layer, by path: one of the above.
        convs: geometry of every convolution, by path.
        input_axes: number of input axes of every dense kernel ``[*inputs, *outputs]`` that may have several, by path.
        epsilons: epsilon of every norm, by path.
        momenta: momentum of every batch norm, by path: what the running statistics keep of themselves at a batch.
        norm_axes: axis of every norm's features, by path.
        head: path of the classifier layer, which each task replaces.
        preprocess: from images to inputs.
        image_size: pixels of the images that the backbone was trained on.
    """

    name: str
    graphdef: Any
    leaves: Mapping[str, Leaf]
    orders: Mapping[tuple[Any, ...], tuple[Any, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]
    convs: Mapping[str, Conv]
    input_axes: Mapping[str, int]
    epsilons: Mapping[str, float]
    momenta: Mapping[str, float]
    norm_axes: Mapping[str, int]
    head: str
    preprocess: Preprocess
    image_size: int
    _token: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Of plain values alone: what hashes the structure would walk all of it.
        content = (self.name, tuple(self.shapes.items()), self.head, self.preprocess, self.image_size)
        object.__setattr__(self, "_token", hash(content))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_token"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Another process hashes text in another way.
        vars(self).update(state)
        self.__post_init__()

    def __hash__(self) -> int:
        return self._token

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Network) or self._token != other._token:
            return False
        names = ("name", "graphdef", "leaves", "orders", "head", "preprocess", "image_size")
        return all(getattr(self, n) == getattr(other, n) for n in names)

    @property
    def kernels(self) -> list[str]:
        """Paths of the layers that can sit on a crossbar, sorted; the head last."""
        return [path for path, kind in self.kinds.items() if kind not in NORM_KINDS]

    @property
    def norms(self) -> list[str]:
        """Paths of the norms whose scale and bias a task may own."""
        return [path for path, kind in self.kinds.items() if kind in NORM_KINDS]

    @property
    def batch_norms(self) -> list[str]:
        """Paths of the norms that have running statistics."""
        return [path for path, kind in self.kinds.items() if kind == "BatchNorm"]

    @property
    def num_parameters(self) -> int:
        """Trainable values: what the module holds as ``nnx.Param``."""
        return sum(math.prod(leaf.shape) for leaf in self.leaves.values() if leaf.parameter)

    def kernel_shape(self, path: str) -> tuple[int, ...]:
        """Shape in which a layer's kernel goes onto arrays: HWIO, or [in, out] whatever the axes of a dense one."""
        shape, count = self.shapes[f"{path}/kernel"], self.input_axes.get(path)
        return shape if count is None else (math.prod(shape[:count]), math.prod(shape[count:]))

    def module(self, arrays: Mapping[str, jax.Array]) -> nnx.Module:
        """The NNX module with ``arrays`` in it; paths that ``arrays`` lacks hold a scalar placeholder."""
        return assemble(self.graphdef, self.leaves, self.orders, arrays)


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
        """Trainable values: neither running statistics nor other state."""
        return self.network.num_parameters


def network_from_module(
    build: Callable[[], nnx.Module], *, name: str, head: str, preprocess: Preprocess, image_size: int
) -> Network:
    """The structure of the module that ``build`` makes; called abstractly, so that no weights are drawn.

    The module is then tried on abstract images, ``[2, image_size, image_size, channels]``: a layer that it calls is one
    of the network's; the arrays of others stay with the module.

    Raises:
        ModelError: names the layer, and what it does that no chip computes.
    """
    made = structure_of(build, name=name, head=head, preprocess=preprocess, image_size=image_size)
    shape = (image_size, image_size, len(preprocess.mean))
    called = called_layers(made.module, made.leaves, head, shape)
    return dataclasses.replace(made, kinds={path: kind for path, kind in made.kinds.items() if path in called})


def structure_of(
    build: Callable[[], nnx.Module], *, name: str, head: str, preprocess: Preprocess, image_size: int
) -> Network:
    """What :func:`network_from_module` makes of a module that is known to call all of its layers as a chip has them."""
    _check_described(name, preprocess, image_size)
    module, orders = _built(build)
    check_names(module)
    graphdef, state = nnx.split(module)
    leaves, found = leaves_of(state), layers(module)
    _check_static(module, graphdef, leaves)
    if head not in found or kind_of(found[head]) != "Linear" or not head:
        linear = [p for p, m in found.items() if kind_of(m) == "Linear" and p]
        raise ModelError(
            "head", head, "the path of a Linear layer: one of " + (", ".join(linear) or "none: it has none")
        )
    if found[head].bias is None:
        raise ModelError(head, "head without bias", "use_bias=True: every task brings its own head")
    for path, layer in found.items():
        check_layer(path, layer)
        shared = [array for array in arrays_of(layer) if f"{path}/{array}" not in leaves]
        if shared:
            raise ModelError(f"{path}/{shared[0]}", "shared with another layer", "arrays of its own for every layer")
    kinds = {p: kind_of(m) or "" for p, m in sorted(found.items(), key=lambda item: (item[0] == head, item[0]))}
    return Network(
        name=name,
        graphdef=graphdef,
        leaves=leaves,
        orders=orders,
        shapes={path: leaf.shape for path, leaf in leaves.items() if not leaf.random},
        kinds=kinds,
        convs={p: conv_geometry(p, found[p]) for p, kind in kinds.items() if kind == "Conv"},
        input_axes={p: input_axes(p, found[p]) for p, kind in kinds.items() if kind in ("LinearGeneral", "Einsum")},
        epsilons={p: float(found[p].epsilon) for p, kind in kinds.items() if kind in NORM_KINDS},
        norm_axes={p: norm_axis(p, found[p]) for p, kind in kinds.items() if kind in NORM_KINDS},
        momenta={p: float(found[p].momentum) for p, kind in kinds.items() if kind == "BatchNorm"},
        head=head,
        preprocess=preprocess,
        image_size=image_size,
    )


def _check_described(name: Any, preprocess: Any, image_size: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ModelError("name", name, "a name")
    if not isinstance(preprocess, Preprocess):
        raise ModelError("preprocess", preprocess, "a Preprocess")
    if isinstance(image_size, bool) or not isinstance(image_size, int) or image_size < 1:
        raise ModelError("image_size", image_size, "a number of pixels, at least 1")


def _built(build: Callable[[], nnx.Module]) -> tuple[nnx.Module, Mapping[tuple[Any, ...], tuple[Any, ...]]]:
    """The module, abstractly, and the order of its dictionaries' keys."""
    orders: dict[tuple[Any, ...], tuple[Any, ...]] = {}

    def watched() -> nnx.Module:
        module = build()
        if not isinstance(module, nnx.Module):
            raise ModelError("build", type(module).__name__, "a function that makes an nnx.Module (Linen has others)")
        orders.update(key_orders(module))
        return module

    try:
        return nnx.eval_shape(watched), orders
    except XbmError:
        raise
    except Exception as error:  # whatever the user's own code raises
        said = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        raise ModelError("build", said, "a function without arguments that makes an nnx.Module") from error


def _check_static(module: nnx.Module, graphdef: Any, leaves: Mapping[str, Leaf]) -> None:
    """Raise unless what a module holds beside its arrays can be compared: equal networks share compiled code."""
    walked = (nnx.Module, nnx.Variable, dict, list, tuple)
    held = {"/".join(map(str, p)): v for p, v in nnx.iter_graph(module) if not isinstance(v, walked)}
    stray = [p for p, v in held.items() if isinstance(v, jax.Array | jax.ShapeDtypeStruct) and p not in leaves]
    if stray:
        raise ModelError(stray[0], "an array", "one that an nnx.Variable holds, so that weights can be loaded for it")
    try:
        hash(graphdef)
    except TypeError as error:
        named = (
            f"{'/'.join(map(str, p))}.{name}".lstrip("/.")
            for p, m in nnx.iter_modules(module)
            for name, value in vars(m).items()
            if isinstance(value, list | dict | set | np.ndarray)
        )
        raise ModelError(next(named, "module"), str(error), "an option that can be hashed: a tuple, say") from error


def backbone(network: Network, arrays: Mapping[str, Any], calibration: Calibration | None = None) -> Backbone:
    """A network with pretrained arrays by path, in Flax's layouts.

    What is floating becomes float32; indices and the like keep the module's dtype. Random state that is given (a
    dropout's key and count) is left out.

    Raises:
        WeightsError: lists every missing, unknown, misshapen or non-finite array at once.
    """
    leaves = network.leaves
    arrays = {path: array for path, array in arrays.items() if path not in leaves or not leaves[path].random}
    check_arrays(network.name, network.shapes, arrays)
    dtypes = {p: jnp.float32 if jnp.issubdtype(leaves[p].dtype, jnp.floating) else leaves[p].dtype for p in arrays}
    unfit = [p for p, a in arrays.items() if not jnp.can_cast(jnp.asarray(a).dtype, dtypes[p], "same_kind")]
    if unfit:
        listing = "\n  ".join(f"{p} is {jnp.asarray(arrays[p]).dtype}, not {dtypes[p]}" for p in sorted(unfit))
        raise WeightsError("weights", f"{len(unfit)} mismatches", f"the arrays of {network.name}:\n  {listing}")
    return Backbone(network, {p: jnp.asarray(arrays[p], dtypes[p]) for p in network.shapes}, calibration)


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


def _float_forward(network: Network, arrays: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    module = network.module(arrays)
    module.eval()
    return module(network.preprocess(images))  # type: ignore[operator]  # nnx.Module has no __call__


_float_logits = jax.jit(_float_forward, static_argnums=0)
