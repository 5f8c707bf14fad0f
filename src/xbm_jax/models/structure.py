"""A Flax NNX module's static structure: its leaves by path, and the module that they make up again.

Layers and arrays are named by their path, ``"layer1_0/conv1/kernel"``. Random state (a dropout's key and count) is no
array of a network: nobody loads it, and nothing draws from it in evaluation.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xbm_jax.errors import ModelError
from xbm_jax.models.modules.layers import layers

__all__ = ["Leaf", "assemble", "check_names", "key_orders", "leaves_of", "stand_in"]

Answer = Callable[..., jax.Array]
"""``(layer, *arguments of its call) -> y``: what is called in the place of a layer."""


@dataclass(frozen=True)
class Leaf:
    """One array of a module.

    Attributes:
        route: the keys that lead to it; ``"0"`` of a dictionary and 0 of a list are not the same.
        shape, dtype: of the array. A dtype that is floating stands for float32, which is what backbones hold.
        parameter: whether it is an ``nnx.Param``, not a statistic, an index or another state.
        random: whether it is random state.
    """

    route: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: Any
    parameter: bool
    random: bool


def leaves_of(state: nnx.State) -> dict[str, Leaf]:
    """The leaves of a module's (abstract) state, by path.

    Raises:
        ModelError: two names that are one path, or what is no array.
    """
    found: dict[str, Leaf] = {}
    for route, held in nnx.to_flat_state(state):
        path = "/".join(map(str, route))
        value = held.get_value() if isinstance(held, nnx.Variable) else held
        random = isinstance(held, nnx.RngState)
        if not (hasattr(value, "shape") and hasattr(value, "dtype")):
            raise ModelError(path, type(value).__name__, "an array: a Variable holds one")
        if not random and jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise ModelError(path, str(value.dtype), "an array of numbers; keys belong to nnx.Rngs")
        found[path] = Leaf(tuple(route), tuple(value.shape), value.dtype, isinstance(held, nnx.Param), random)
    return found


def check_names(module: nnx.Module) -> None:
    """Raise ModelError for names that would be taken for others: those with a slash or, once stored, with a dot."""
    seen: dict[str, tuple[Any, ...]] = {}
    for route, _ in nnx.iter_graph(module):
        path = "/".join(map(str, route))
        slashed = [str(part) for part in route if "/" in str(part)]
        if slashed:
            raise ModelError("module", slashed[0], "names without '/': it parts the names of a path")
        other = seen.setdefault(path.replace("/", "."), tuple(route))
        if other != tuple(route):
            raise ModelError("module", path, f"a path that differs from {other} by more than the kind of its keys")


def key_orders(module: nnx.Module) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """The keys of every dictionary that is not sorted, by its route: taken apart and merged, it would be."""
    held = {tuple(route): tuple(node) for route, node in nnx.iter_graph(module) if isinstance(node, dict | nnx.Dict)}
    return {route: keys for route, keys in held.items() if list(keys) != sorted(keys, key=str)}


def assemble(
    graphdef: Any,
    leaves: Mapping[str, Leaf],
    orders: Mapping[tuple[Any, ...], tuple[Any, ...]],
    arrays: Mapping[str, Any],
) -> nnx.Module:
    """The module with ``arrays`` in it; paths that ``arrays`` lacks hold a scalar placeholder."""
    # Bare values: the graph knows what kind of Variable holds each.
    values = [(leaf.route, _random(leaf) if leaf.random else arrays.get(p, np.zeros(()))) for p, leaf in leaves.items()]
    module = nnx.merge(graphdef, nnx.from_flat_state(values))
    for route, node in nnx.iter_graph(module) if orders else ():
        if tuple(route) in orders:
            held = vars(node) if isinstance(node, nnx.Dict) else node
            held |= {key: held.pop(key) for key in orders[tuple(route)]}
    return module


def _random(leaf: Leaf) -> jax.Array:
    """Random state that nothing draws from; the key's implementation is the module's."""
    if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.zeros(leaf.shape, leaf.dtype)
    data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return jax.random.wrap_key_data(jnp.zeros(data.shape, data.dtype), dtype=leaf.dtype)


def stand_in(module: nnx.Module, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Let ``answers`` be called in the place of the layers at their paths; returns those layers.

    The layer itself changes, not the place that holds it: it may have several names, or sit in a tuple.
    """
    found = layers(module)
    for path, answer in answers.items():
        layer = found[path]
        layer.stand_in = answer
        object.__setattr__(layer, "__class__", _answering(type(layer)))
    return {path: found[path] for path in answers}


@cache
def _answering(kind: type) -> type:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.stand_in(self, *args, **kwargs)

    return types.new_class(kind.__name__, (kind,), exec_body=lambda names: names.update(__call__=call))
