"""A trial of a module on abstract examples: which of its layers are called, and that a chip can answer for them.

A chip answers for a layer where it is called, once per name, with one array of features. What else a module may do
with its layers (call them inside of a transformation that copies or retraces them, read their kernels itself, compute
something after its head) would be half computed; it is found here, before any array is there, and refused by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
from flax import nnx

from xbm_jax.errors import ModelError, XbmError
from xbm_jax.models.inputs import call
from xbm_jax.models.modules.layers import NORM_KINDS, arrays_of, kind_of, layers, reduced_axes
from xbm_jax.models.structure import Leaf, stand_in

__all__ = ["TRIED", "answering_layer", "called_layers"]

TRIED = 2
"""Examples of a trial."""

_TRANSFORMED = "called inside of a transformation (nnx.jit, nnx.remat, nnx.scan, nnx.vmap, a recurrent layer)"


def called_layers(
    build: Callable[[Mapping[str, Any]], nnx.Module],
    leaves: Mapping[str, Leaf],
    head: str,
    inputs: Any,
) -> set[str]:
    """Paths of the layers that the module calls; the others' arrays are for the module itself.

    Args:
        build: the module with arrays by path in it.
        leaves: its arrays.
        head: path of its classifier.
        inputs: abstract examples, TRIED of them, as the module takes them.

    Raises:
        ModelError: names the layer and what it does that no chip computes.
    """
    arrays = {p: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for p, leaf in leaves.items() if not leaf.random}
    trial = _Trial(build, head)
    jaxpr = _asked(lambda: jax.make_jaxpr(trial.run)(inputs, arrays, arrays), inputs)
    if not trial.calls[head]:
        raise ModelError("head", head, "a layer that the module calls")
    _check_untouched(jaxpr.jaxpr, sorted(arrays), trial.taken, len(jax.tree.leaves(inputs)))
    return set(trial.calls)


def answering_layer(
    build: Callable[[Mapping[str, Any]], nnx.Module], leaves: Mapping[str, Leaf], inputs: Any
) -> str | None:
    """Path of the layer whose answer is the module's own, ``None`` if something else is computed last."""
    arrays = {p: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for p, leaf in leaves.items() if not leaf.random}
    last: list[str | None] = [None]

    def run(inputs: Any, arrays: Mapping[str, Any]) -> None:
        plain, module = build(arrays), build(arrays)
        plain.eval()
        module.eval()
        answers: list[tuple[str, Any]] = []

        def of(path: str, layer: Any) -> Callable[..., Any]:
            def answer(_: Any, *args: Any, **kwargs: Any) -> Any:
                answers.append((path, type(layer).__call__(layer, *args, **kwargs)))
                return answers[-1][1]

            return answer

        stand_in(module, {path: of(path, layer) for path, layer in layers(plain).items()})
        y = call(module, inputs)
        last[0] = next((path for path, own in answers if own is y), None)

    _asked(lambda: jax.eval_shape(run, inputs, arrays), inputs)
    return last[0]


def _asked(trace: Callable[[], Any], inputs: Any) -> Any:
    """What tracing a module gives; whatever it raises says that it does not answer such inputs."""
    try:
        return trace()
    except XbmError:
        raise
    except Exception as error:  # whatever the module raises
        said = str(error).strip().partition("\n")[0]
        shapes = ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(inputs))
        allowed = f"a module that answers inputs {shapes} when a chip reads its layers"
        raise ModelError("module", f"{type(error).__name__}: {said}", allowed) from error


class _Trial:
    """What is seen of a module's layers while it is traced once."""

    def __init__(self, build: Callable[[Mapping[str, Any]], nnx.Module], head: str) -> None:
        self.build, self.head = build, head
        self.calls: Counter[str] = Counter()
        self.taken: set[str] = set()
        self.logits: jax.Array | None = None

    def run(self, inputs: Any, own: Mapping[str, Any], placed: Mapping[str, Any]) -> jax.Array:
        """The module's answer to ``inputs``; its layers compute with ``own`` arrays, it holds the ``placed`` ones."""
        plain, module = self.build(own), self.build(placed)
        plain.eval()
        module.eval()
        self.trace, self.layers = _trace(), layers(plain)
        self.placed = stand_in(module, {path: self._answer(path) for path in self.layers})
        counts = {path: v.get_value() for path, v in _counts(module)}
        logits = call(module, inputs)
        for path, v in _counts(module):
            if v.get_value() is not counts.get(path):
                name = "/".join(map(str, path))
                raise ModelError(name, "draws random numbers in evaluation", "a network that does not")
        if self.calls[self.head]:
            self._check_logits(logits)
        return logits

    def _check_logits(self, logits: Any) -> None:
        if logits is not self.logits:
            raise ModelError(self.head, "something is computed after the head", "the head's answer as the module's own")
        if logits.ndim < 2 or logits.shape[0] != TRIED:
            value = f"an answer of shape {list(logits.shape)} for {TRIED} examples"
            raise ModelError(self.head, value, "[batch, outputs], or [batch, tokens, outputs]")

    def _answer(self, path: str) -> Callable[..., jax.Array]:
        layer = self.layers[path]
        kind = kind_of(layer)

        def answer(called: Any, *args: Any, **kwargs: Any) -> jax.Array:
            if called is not self.placed[path] or _trace() != self.trace:
                allowed = "a layer that is called plainly: the whole network is compiled as it is"
                raise ModelError(path, _TRANSFORMED, allowed)
            x = _input(path, kind, args, kwargs)
            _check_input(path, kind, layer, x)
            self._count(path, kind)
            y = type(layer).__call__(layer, x)
            if not x.size or not y.size:
                allowed = "images that are large enough for all layers"
                raise ModelError(path, f"input {list(x.shape)}, answer {list(y.shape)}", allowed)
            if path == self.head:
                self.logits = y
            return y

        return answer

    def _count(self, path: str, kind: str | None) -> None:
        """Count a call, and what is taken from the module for it: a kernel, or all that a task may own."""
        self.calls[path] += 1
        owned = path == self.head or kind in NORM_KINDS
        self.taken |= {f"{path}/{name}" for name in arrays_of(self.layers[path]) if owned or name == "kernel"}
        if self.calls[path] > 1 and (path == self.head or kind == "BatchNorm"):
            value = f"a {'head' if path == self.head else kind} that is called twice"
            raise ModelError(path, value, "one for each call: a task has one head, and one set of running statistics")


def _input(path: str, kind: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> jax.Array:
    """The one array that a layer is called with; other arguments have to be what they are anyway."""
    named = dict(zip(("x", "use_running_average" if kind in NORM_KINDS else "argument"), args, strict=False)) | kwargs
    named |= {} if "inputs" not in named else {"x": named.pop("inputs")}
    x = named.pop("x", None)
    usual = {"use_running_average": True}
    odd = {k: v for k, v in named.items() if v is not None and not (k in usual and v is usual[k])}
    if odd or x is None or len(args) > 2:
        raise ModelError(path, f"called with {sorted(odd) or 'no input'}", "its input alone")
    return x


def _check_input(path: str, kind: str | None, layer: Any, x: jax.Array) -> None:
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        raise ModelError(path, f"an input of {x.dtype}", "real numbers")
    if kind in ("Conv", "ConvTranspose") and x.ndim < len(layer.kernel_size) + 2:
        sides = {1: "length", 2: "height, width", 3: "depth, height, width"}[len(layer.kernel_size)]
        raise ModelError(path, f"an input of shape {list(x.shape)}", f"[batch, {sides}, channels]")
    if kind == "LinearGeneral" and {0, -x.ndim} & set(layer.axis):
        raise ModelError(path, f"axis={layer.axis}", "a product over features, not over the batch")
    if kind in NORM_KINDS and (over := {0, -x.ndim} & set(reduced_axes(path, layer))):
        raise ModelError(path, f"axis {over.pop()}", "a norm over features, not over the batch")


def _check_untouched(jaxpr: Any, paths: list[str], taken: set[str], inputs: int) -> None:
    """Raise where the module itself computes with an array that will be on crossbars, or a task's."""
    placed = dict(zip(jaxpr.invars[inputs + len(paths) :], paths, strict=True))
    used = [v for equation in jaxpr.eqns for v in equation.invars if not hasattr(v, "val")]
    for path in (placed[v] for v in (*used, *jaxpr.outvars) if not hasattr(v, "val") and v in placed):
        if path in taken:
            raise ModelError(path, "read by the module itself", "an array that its layer alone computes with")


def _counts(module: nnx.Module) -> list[tuple[Any, nnx.Variable]]:
    return list(nnx.to_flat_state(nnx.state(module, nnx.RngCount)))


def _trace() -> Any:
    """What tells the trace apart that is being recorded: inside of a transformation it is another one."""
    return jax.extend.core.get_opaque_trace_state(convention="nnx")
