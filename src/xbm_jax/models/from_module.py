"""From a user's Flax NNX module to a network: built abstractly, checked layer by layer, then tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.errors import ModelError, XbmError
from xbm_jax.models.inputs import InputSpec
from xbm_jax.models.layers import (
    NORM_KINDS,
    arrays_of,
    check_layer,
    form_of,
    kind_of,
    layers,
    norm_axis,
)
from xbm_jax.models.network import Network
from xbm_jax.models.preprocess import Preprocess
from xbm_jax.models.structure import Leaf, check_names, key_orders, leaves_of
from xbm_jax.models.trial import TRIED, called_layers

__all__ = ["network_from_module", "structure_of"]


def network_from_module(
    build: Callable[[], nnx.Module],
    *,
    name: str,
    head: str,
    preprocess: Preprocess | None = None,
    image_size: int | None = None,
    inputs: Any = None,
) -> Network:
    """The structure of the module that ``build`` makes; called abstractly, so that no weights are drawn.

    The module is then tried on two abstract examples: a layer that it calls is one of the network's; the arrays of
    others stay with the module.

    Args:
        preprocess: from uint8 images to the module's input.
        image_size: pixels of the images.
        inputs: instead of both, one example of what the module takes without a batch axis: arrays or
            ``jax.ShapeDtypeStruct``; a tuple is its arguments, a dictionary its keywords, all else its one argument.

    Raises:
        ModelError: names the layer, and what it does that no chip computes.
    """
    made = structure_of(build, name=name, head=head, preprocess=preprocess, image_size=image_size, inputs=inputs)
    called = called_layers(made.module, made.leaves, head, _abstract(made))
    return dataclasses.replace(made, kinds={path: kind for path, kind in made.kinds.items() if path in called})


def _abstract(made: Network) -> Any:
    """What the module is called with for two examples."""
    if made.inputs is not None:
        return made.inputs.batch(TRIED)
    assert made.preprocess is not None and made.image_size is not None  # checked when the structure was made
    shape = (TRIED, made.image_size, made.image_size, len(made.preprocess.mean))
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def structure_of(
    build: Callable[[], nnx.Module],
    *,
    name: str,
    head: str,
    preprocess: Preprocess | None = None,
    image_size: int | None = None,
    inputs: Any = None,
) -> Network:
    """What :func:`network_from_module` makes of a module that is known to call all of its layers as a chip has them."""
    _check_described(name, preprocess, image_size, inputs)
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
        forms={p: form_of(p, found[p]) for p, kind in kinds.items() if kind not in NORM_KINDS},
        epsilons={p: float(found[p].epsilon) for p, kind in kinds.items() if kind in NORM_KINDS},
        norm_axes={p: norm_axis(p, found[p]) for p, kind in kinds.items() if kind in NORM_KINDS},
        momenta={p: float(found[p].momentum) for p, kind in kinds.items() if kind == "BatchNorm"},
        head=head,
        preprocess=preprocess,
        image_size=image_size,
        inputs=None if inputs is None else InputSpec.of(inputs),
    )


def _check_described(name: Any, preprocess: Any, image_size: Any, inputs: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ModelError("name", name, "a name")
    if inputs is not None:
        if preprocess is not None or image_size is not None:
            given = "preprocess" if preprocess is not None else "image_size"
            raise ModelError(given, preprocess or image_size, "None beside inputs: it is for images")
        return
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
