"""From a user's Flax module, NNX or Linen, to a network: built abstractly, checked layer by layer, then tried."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx

from xbm_jax.errors import ModelError, XbmError
from xbm_jax.models.inputs import InputSpec
from xbm_jax.models.modules.layers import NORM_KINDS, arrays_of, check_layer, form_of, kind_of, layers, norm_axis
from xbm_jax.models.modules.linen import linen_module, variables_by_path
from xbm_jax.models.network import Backbone, Network, backbone
from xbm_jax.models.preprocess import Preprocess
from xbm_jax.models.structure import Leaf, assemble, check_names, key_orders, leaves_of
from xbm_jax.models.trial import TRIED, answering_layer, called_layers

__all__ = ["Module", "backbone_from_module", "network_from_module", "structure_of"]

Module = nnx.Module | nn.Module


@dataclass(frozen=True)
class _Described:
    """What a user says of a module."""

    name: str | None = None
    head: str | None = None
    preprocess: Preprocess | None = None
    image_size: int | None = None
    inputs: Any = None
    variables: Mapping[str, Any] | None = None
    call: Mapping[str, Any] | None = None

    @property
    def abstract(self) -> Any:
        """What the module is called with for TRIED examples."""
        if self.inputs is not None:
            return InputSpec.of(self.inputs).batch(TRIED)
        assert self.preprocess is not None and self.image_size is not None  # checked before
        shape = (TRIED, self.image_size, self.image_size, len(self.preprocess.mean))
        return jax.ShapeDtypeStruct(shape, jnp.float32)


def network_from_module(
    build: Callable[[], nnx.Module] | Module,
    *,
    name: str | None = None,
    head: str | None = None,
    preprocess: Preprocess | None = None,
    image_size: int | None = None,
    inputs: Any = None,
    variables: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
) -> Network:
    """The structure of a user's module; called abstractly, so that no weights are drawn.

    The module is then tried on two abstract examples: a layer that it calls is one of the network's; the arrays of
    others stay with the module.

    Args:
        build: a Flax NNX module or a function that makes one, or a Flax Linen module.
        name: the network's; the class's if there is none.
        head: path of the classifier that each task replaces; the layer that answers last if none is named.
        preprocess: from uint8 images to the module's input.
        image_size: pixels of the images.
        inputs: instead of both, one example of what the module takes without a batch axis: arrays or
            ``jax.ShapeDtypeStruct``; a tuple is its arguments, a dictionary its keywords, all else its one argument.
            An :class:`~xbm_jax.models.InputSpec` where sentences are padded, and to several lengths.
        variables: of a Linen module, what its ``init`` gives, or the shapes of that.
        call: of a Linen module, keyword arguments that are no arrays: ``{"train": False}``, say.

    Raises:
        ModelError: names the layer, and what it does that no chip computes.
    """
    said = _Described(name, head, preprocess, image_size, inputs, variables, call)
    made = _made(build, said)
    called = called_layers(made.module, made.leaves, made.head, said.abstract)
    return dataclasses.replace(made, kinds={path: kind for path, kind in made.kinds.items() if path in called})


def backbone_from_module(
    module: Module,
    *,
    name: str | None = None,
    head: str | None = None,
    preprocess: Preprocess | None = None,
    image_size: int | None = None,
    inputs: Any = None,
    variables: Mapping[str, Any] | None = None,
    call: Mapping[str, Any] | None = None,
) -> Backbone:
    """A module with its weights as a backbone; arguments as of :func:`network_from_module`.

    Raises:
        ModelError: names the layer, and what it does that no chip computes. WeightsError: numbers that are not finite.
    """
    described = {"name": name, "head": head, "preprocess": preprocess, "image_size": image_size, "inputs": inputs}
    network = network_from_module(module, **described, variables=variables, call=call)
    if isinstance(module, nn.Module):
        arrays = variables_by_path(variables or {})[0]
    else:
        flat = nnx.to_flat_state(nnx.state(module))
        arrays = {"/".join(map(str, p)): v.get_value() if isinstance(v, nnx.Variable) else v for p, v in flat}
    return backbone(network, arrays)


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
    return _made(build, _Described(name, head, preprocess, image_size, inputs))


def _made(build: Any, said: _Described) -> Network:
    """The network of a module that is not yet tried."""
    name = type(build).__name__ if said.name is None and isinstance(build, Module) else said.name
    _check_described(name, said.preprocess, said.image_size, said.inputs)
    assert name is not None  # checked
    module, orders = _built(_maker(build, said))
    check_names(module)
    graphdef, state = nnx.split(module)
    leaves, found = leaves_of(state), layers(module)
    _check_static(module, graphdef, leaves)
    head = said.head
    if head is None:
        head = answering_layer(partial(assemble, graphdef, leaves, orders), leaves, said.abstract)
    head = _checked_head(head, found)
    for path, layer in found.items():
        check_layer(path, layer)
        shared = [array for array in arrays_of(layer) if f"{path}/{array}" not in leaves]
        if shared:
            raise ModelError(f"{path}/{shared[0]}", "shared with another layer", "arrays of its own for every layer")
    kinds = {p: kind_of(m) or "" for p, m in sorted(found.items(), key=lambda item: (item[0] == head, item[0]))}
    norms = [path for path, kind in kinds.items() if kind in NORM_KINDS]
    return Network(
        name=name,
        graphdef=graphdef,
        leaves=leaves,
        orders=orders,
        shapes={path: leaf.shape for path, leaf in leaves.items() if not leaf.random},
        kinds=kinds,
        forms={p: form_of(p, found[p]) for p in kinds if p not in norms},
        epsilons={p: float(found[p].epsilon) for p in norms},
        norm_axes={p: norm_axis(p, found[p]) for p in norms},
        momenta={p: float(found[p].momentum) for p, kind in kinds.items() if kind == "BatchNorm"},
        head=head,
        preprocess=said.preprocess,
        image_size=said.image_size,
        inputs=None if said.inputs is None else InputSpec.of(said.inputs),
    )


def _maker(build: Any, said: _Described) -> Callable[[], Any]:
    """What makes the NNX module."""
    if isinstance(build, nn.Module):
        return lambda: linen_module(build, said.variables or {}, said.call or {}, said.abstract)
    for field in ("variables", "call"):
        if getattr(said, field) is not None:
            raise ModelError(field, "given for an NNX module", "None: they are for Linen modules")
    return (lambda: nnx.clone(build)) if isinstance(build, nnx.Module) else build


def _checked_head(head: str | None, found: Mapping[str, Any]) -> str:
    if not head or head not in found or kind_of(found[head]) != "Linear":
        linear = [p for p, m in found.items() if kind_of(m) == "Linear" and p]
        value = "none is called last" if head is None else head
        raise ModelError(
            "head", value, "the path of a Linear layer: one of " + (", ".join(linear) or "none: it has none")
        )
    if found[head].bias is None:
        raise ModelError(head, "head without bias", "use_bias=True: every task brings its own head")
    return head


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
            raise ModelError(
                "build",
                type(module).__name__,
                "a function that makes an nnx.Module; a Linen module goes by itself, with its variables",
            )
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
