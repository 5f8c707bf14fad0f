"""A backbone, split at its edge: the static structure of a Flax NNX module and its arrays by path.

Any NNX module of ``nnx.Conv``, ``nnx.ConvTranspose``, ``nnx.Linear``, ``nnx.LinearGeneral`` (hence
``nnx.MultiHeadAttention``), ``nnx.Einsum``, ``nnx.BatchNorm``, ``nnx.LayerNorm``, ``nnx.RMSNorm`` and
``nnx.GroupNorm`` layers will do; what else it holds (a class token, an ``nnx.Embed``, a layer that it never calls)
stays digital and frozen. Layers are named by their path, ``"layer1_0/conv1"``; arrays by ``"layer1_0/conv1/kernel"``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.crossbar import Conv
from xbm_jax.errors import WeightsError
from xbm_jax.models.inputs import InputSpec, call
from xbm_jax.models.modules.forms import Form
from xbm_jax.models.modules.layers import NORM_KINDS
from xbm_jax.models.preprocess import Preprocess
from xbm_jax.models.structure import Leaf, assemble
from xbm_jax.models.weights.names import array_fault

__all__ = ["Backbone", "Calibration", "Network", "backbone", "check_arrays"]


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
        forms: how every layer's product goes onto arrays, by path.
        epsilons: epsilon of every norm, by path.
        momenta: momentum of every batch norm, by path: what the running statistics keep of themselves at a batch.
        norm_axes: axis of every norm's features, by path.
        head: path of the classifier layer, which each task replaces.
        preprocess: from images to the module's input; ``None`` for a network of other inputs.
        image_size: pixels of the images that the backbone was trained on; ``None`` likewise.
        inputs: what one example is; ``None`` for uint8 images.
    """

    name: str
    graphdef: Any
    leaves: Mapping[str, Leaf]
    orders: Mapping[tuple[Any, ...], tuple[Any, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, str]
    forms: Mapping[str, Form]
    epsilons: Mapping[str, float]
    momenta: Mapping[str, float]
    norm_axes: Mapping[str, int]
    head: str
    preprocess: Preprocess | None
    image_size: int | None
    inputs: InputSpec | None = None
    _token: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Of plain values alone: what hashes the structure would walk all of it.
        content = (self.name, tuple(self.shapes.items()), self.head, self.preprocess, self.image_size, self.inputs)
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
        names = ("name", "graphdef", "leaves", "orders", "head", "preprocess", "image_size", "inputs")
        return all(getattr(self, n) == getattr(other, n) for n in names)

    @property
    def kernels(self) -> list[str]:
        """Paths of the layers that can sit on a crossbar, sorted; the head last."""
        return [path for path, kind in self.kinds.items() if kind not in NORM_KINDS]

    @property
    def convs(self) -> dict[str, Conv]:
        """The crossbar's geometry of every convolution, by path."""
        return {path: form.conv for path, form in self.forms.items() if form.conv is not None}

    @property
    def norms(self) -> list[str]:
        """Paths of the norms whose scale and bias a task may own."""
        return [path for path, kind in self.kinds.items() if kind in NORM_KINDS]

    def norm_arrays(self, path: str) -> tuple[str, ...]:
        """What a task may own of a norm: its scale, its bias, or both."""
        return tuple(name for name in ("scale", "bias") if f"{path}/{name}" in self.shapes)

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
        own = jax.ShapeDtypeStruct(self.shapes[f"{path}/kernel"], jnp.float32)
        return jax.eval_shape(self.forms[path].on_arrays, own).shape

    def prepared(self, inputs: Any) -> Any:
        """What the module is called with: images preprocessed, other inputs as they are."""
        return inputs if self.preprocess is None else self.preprocess(inputs)

    def real(self, inputs: Any) -> Any:
        """Which positions of the examples are no padding, bool [n, positions]; ``None``: all of them."""
        return None if self.inputs is None else self.inputs.real(inputs)

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

    def logits(self, inputs: Any) -> jax.Array:
        """Float predictions of the source task, [batch, classes], norms in evaluation mode.

        Args:
            inputs: uint8 images, or the pytree of arrays that the network takes.
        """
        return _float_logits(self.network, dict(self.arrays), jax.tree.map(jnp.asarray, inputs))

    def kernel(self, path: str) -> jax.Array:
        """A layer's kernel in the shape in which it goes onto arrays."""
        return self.network.forms[path].on_arrays(self.arrays[f"{path}/kernel"])

    @property
    def num_parameters(self) -> int:
        """Trainable values: neither running statistics nor other state."""
        return self.network.num_parameters


def backbone(network: Network, arrays: Mapping[str, Any], calibration: Calibration | None = None) -> Backbone:
    """A network with pretrained arrays by path, in Flax's layouts.

    What is floating becomes float32; indices and the like keep the module's dtype. Random state that is given (a
    dropout's key and count) is left out.

    Raises:
        WeightsError: lists every missing, unknown, misshapen or non-finite array at once.
    """
    leaves = network.leaves
    arrays = {path: array for path, array in arrays.items() if path not in leaves or not leaves[path].random}
    check_arrays(network, arrays)
    dtypes = {p: jnp.float32 if jnp.issubdtype(leaves[p].dtype, jnp.floating) else leaves[p].dtype for p in arrays}
    return Backbone(network, {p: jnp.asarray(arrays[p], dtypes[p]) for p in network.shapes}, calibration)


def check_arrays(network: Network, arrays: Mapping[str, Any]) -> None:
    """Raise one error that lists all mismatches between a backbone's arrays and those given."""
    shapes = network.shapes
    problems = [f"{p} is missing" for p in shapes if p not in arrays]
    problems += [f"{p} is unknown" for p in arrays if p not in shapes]
    for path in shapes.keys() & arrays.keys():
        got = np.shape(arrays[path])
        if got != shapes[path]:
            problems.append(f"{path} has shape {got}, not {shapes[path]}")
        elif fault := _fault(path, network.leaves[path].dtype, arrays[path]):
            problems.append(f"{path} {fault}")
    if problems:
        listing = "\n  ".join(sorted(problems))
        raise WeightsError("weights", f"{len(problems)} mismatches", f"the arrays of {network.name}:\n  {listing}")


def _fault(path: str, dtype: Any, array: Any) -> str | None:
    """What keeps an array from being the module's of ``dtype``, or None."""
    if jnp.issubdtype(dtype, jnp.floating):
        return array_fault(path, array)
    given = np.asarray(array).dtype
    return None if jnp.can_cast(given, dtype, "same_kind") else f"is {given}, not {dtype}"


def _float_forward(network: Network, arrays: dict[str, jax.Array], images: jax.Array) -> jax.Array:
    module = network.module(arrays)
    module.eval()
    return call(module, network.prepared(images))


_float_logits = jax.jit(_float_forward, static_argnums=0)
