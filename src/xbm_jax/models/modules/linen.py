"""A Flax Linen module as an NNX module: each of its layers that a chip knows has a twin that computes in its place.

The twin is the NNX layer of the same name and options and holds the layer's arrays; all other variables are held as
they are. A call runs the user's own Linen code under an interceptor that asks the twins, so that whatever is known of
NNX modules (paths, trial, forward pass) holds for Linen: paths are Linen's own, ``"Block_0/Dense_0/kernel"``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx
from flax.core import meta

from xbm_jax.errors import ModelError
from xbm_jax.models.modules.twins import twin, twin_kind

__all__ = ["Linen", "linen_module", "variables_by_path"]

_TRANSFORMED = "called inside of a Linen transformation (nn.scan, nn.remat, nn.vmap, nn.jit, nn.RNN)"


@dataclass(frozen=True)
class _Program:
    """What is static about a Linen module's call.

    Attributes:
        module: the user's.
        options: keyword arguments of every call, by name.
        collections: collection of every variable, by path.
        twins: paths of the layers that have one.
    """

    module: nn.Module
    options: tuple[tuple[str, Any], ...]
    collections: tuple[tuple[str, str], ...]
    twins: tuple[str, ...]


class Linen(nnx.Module):
    """The NNX module of a Linen module; made by :func:`linen_module`."""

    def __init__(self, linen_program: _Program, held: dict[str, Any]) -> None:
        self.linen_program = linen_program
        for name, node in held.items():
            if hasattr(self, name):
                raise ModelError(name, "a Linen name", "names that no attribute of nnx.Module has")
            setattr(self, name, nnx.data(node))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        program = self.linen_program
        twins = {path: self._at(path) for path in program.twins}
        variables = self.variables()

        def ask(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            known = context.method_name == "__call__" and twin_kind(context.module) is not None
            own = twins.get("/".join(context.module.path)) if known else None
            return call(*args, **kwargs) if own is None else own(*args, **_merged(context.module, kwargs))

        with nn.intercept_methods(ask):
            return program.module.apply(variables, *args, **dict(program.options), **kwargs)

    def variables(self) -> dict[str, Any]:
        """The arrays in the module's own structure, by collection."""
        variables: dict[str, Any] = {}
        for path, collection in self.linen_program.collections:
            node = variables.setdefault(collection, {})
            *names, last = path.split("/")
            for name in names:
                node = node.setdefault(name, {})
            node[last] = self._at(path).get_value()
        return variables

    def _at(self, path: str) -> Any:
        node: Any = self
        for name in path.split("/"):
            node = node[name] if isinstance(node, dict) else getattr(node, name)
        return node


def linen_module(module: nn.Module, variables: Mapping[str, Any], options: Mapping[str, Any], inputs: Any) -> Linen:
    """The NNX module of ``module``, abstractly.

    Args:
        variables: as ``module.init`` gives them, ``{"params": ..., "batch_stats": ...}``: arrays or their shapes.
        options: keyword arguments of every call that are no arrays, ``{"train": False}`` say.
        inputs: what the module is called with, a batch of abstract examples: a tuple of arguments, a dictionary of
            keywords, or one argument.

    Raises:
        ModelError: a module whose call fails, or what no chip computes.
    """
    shapes, collections = variables_by_path(variables)
    found = _layers(module, variables, options, inputs)
    held: dict[str, Any] = {}
    for path, shape in sorted(shapes.items()):
        owner, _, _ = path.rpartition("/")
        if owner in found:
            continue
        kind = nnx.Param if collections[path] == "params" else nnx.Variable
        _put(held, path, kind(jnp.zeros(shape.shape, shape.dtype)))
    for path, layer in sorted(found.items()):
        own = {p.rpartition("/")[2]: s for p, s in shapes.items() if p.rpartition("/")[0] == path}
        _put(held, path, twin(layer, own))
    try:
        options_held = tuple(sorted(options.items()))
        hash(options_held)
    except TypeError as error:
        raise ModelError("call", dict(options), f"keyword arguments that can be hashed ({error})") from error
    return Linen(_Program(module, options_held, tuple(sorted(collections.items())), tuple(sorted(found))), held)


def variables_by_path(variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Arrays of a Linen module by path, and the collection that each is of. Partitioning boxes are opened.

    Raises:
        ModelError: no collections of arrays, or two collections with one path.
    """
    if not isinstance(variables, Mapping) or "params" not in variables:
        given = sorted(variables) if isinstance(variables, Mapping) else type(variables).__name__
        raise ModelError("variables", given, 'what module.init gives: {"params": ..., ...}')
    arrays: dict[str, Any] = {}
    collections: dict[str, str] = {}
    for collection, tree in meta.unbox(variables).items():
        for keys, array in jax.tree_util.tree_flatten_with_path(tree)[0]:
            path = "/".join(str(getattr(key, "key", key)) for key in keys)
            if path in arrays:
                raise ModelError(path, f"in {collections[path]} and {collection}", "a name in one collection")
            if not hasattr(array, "shape") or not hasattr(array, "dtype"):
                raise ModelError(path, type(array).__name__, "an array")
            arrays[path], collections[path] = array, collection
    return arrays, collections


def _layers(module: nn.Module, variables: Any, options: Mapping[str, Any], inputs: Any) -> dict[str, nn.Module]:
    """The layers that a call of the module calls, by path."""
    found: dict[str, nn.Module] = {}

    def run(variables: Any, inputs: Any) -> None:
        trace = _trace()

        def note(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            path = "/".join(context.module.path)
            if context.method_name == "__call__" and twin_kind(context.module) is not None:
                if _trace() != trace:
                    raise ModelError(path, _TRANSFORMED, "a layer that is called plainly: leave it out for the chip")
                if _merged(context.module, kwargs).get("use_running_average") is False:
                    raise ModelError(path, "use_running_average=False", "True: call={'train': False}, say")
                found[path] = context.module
            return call(*args, **kwargs)

        args = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
        kwargs = inputs if isinstance(inputs, dict) else {}
        with nn.intercept_methods(note):
            module.apply(variables, *args, **options, **kwargs)

    try:
        jax.eval_shape(run, meta.unbox(variables), inputs)
    except ModelError:
        raise
    except Exception as error:  # whatever the user's own code raises
        said = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
        allowed = "a module that answers these inputs in evaluation; call={'train': False}, say, are its keywords"
        raise ModelError("module", said, allowed) from error
    return found


def _merged(layer: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A call's keywords, an option of the layer that says how a norm is used among them."""
    own = getattr(layer, "use_running_average", None)
    return dict(kwargs) if own is None else {"use_running_average": own, **kwargs}


def _put(held: dict[str, Any], path: str, value: Any) -> None:
    *names, last = path.split("/")
    for name in names:
        held = held.setdefault(name, {})
    held[last] = value


def _trace() -> Any:
    return jax.extend.core.get_opaque_trace_state(convention="nnx")
