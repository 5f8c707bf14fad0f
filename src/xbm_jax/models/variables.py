"""From a chip back to plain Flax variables: what its cells hold now, in the structure of the user's own module."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.crossbar import Tiles, gained_kernel
from xbm_jax.errors import MethodError
from xbm_jax.masks import Method
from xbm_jax.models.calibration import source_trained
from xbm_jax.models.chip import Chip
from xbm_jax.models.modules.linen import Linen
from xbm_jax.promotion import numpy_promotion

__all__ = ["flax_variables", "held_weights"]


def held_weights(tiles: Tiles, gain: jax.Array | None = None) -> jax.Array:
    """The weights that a programmed kernel stands for as it is now, of the shape in which it lies on arrays.

    ``s_w`` times what a read with ideal converters multiplies input codes by: levels, programming error, stuck cells,
    drift, the digital factor for it, and wires are in it; read noise, curves and converters are not. Under ``gain``, of
    columns [T, N] or of lines [T, 2, N], a weight in row tile t is ``a[t, n]`` of itself, since

        y[n] = sum_t a[t, n] sum_{r in t} x[r] W[r, n] = sum_r x[r] (a[t(r), n] W[r, n])
    """
    held = gained_kernel(tiles, gain) * tiles.weight_scale
    return held if tiles.drift_factor is None else held * tiles.drift_factor


@numpy_promotion
def flax_variables(
    chip: Chip, method: Method | None = None, trained: dict[str, Any] | None = None, stats: Any = None
) -> Any:
    """Variables with which the user's own module, without a chip, computes what the chip holds.

    Kernels are :func:`held_weights`; what stayed digital is the backbone's. Norms, head and gains are those of the
    source task, or what ``method`` has ``trained``, in the form that :func:`forward` takes: ``xbm.flax_variables(chip,
    task)`` checks that they are of this chip. The module answers as ``xbm.predict(chip, task, inputs)`` does where
    converters are ideal and reads without noise, up to the chip's rounding and clipping of inputs to codes. Beside
    real converters it differs by what these add, tile by tile: that is no kernel's. ``chip.at(t)`` gives those of a
    later time.

    Returns:
        Of a Linen module its collections, ``{"params": ...}``, for ``module.apply``; of an NNX module an ``nnx.State``
        for ``nnx.update(module, state)``, random state left out. The head is as wide as the task's: a Linen module is
        to be made with so many outputs.

    Raises:
        MethodError: a task that computes something beside the arrays that is no product, or another kind of head.
    """
    method = Method("source", norms="frozen") if method is None else method
    trained = source_trained(chip) if trained is None else trained
    stats = chip.stats if stats is None else stats
    network, arrays = chip.network, dict(chip.digital)
    for path, tiles in chip.tiles.items():
        name = f"{path}/kernel"
        arrays[name] = network.forms[path].own(_kernel(method, path, tiles, trained["masks"]), network.shapes[name])
    norms = {path: trained["norms"].get(path, affine) for path, affine in chip.norms.items()}
    for path, group in norms.items():
        own = _unfolded(group, network.epsilons[path]) if "slope" in group else {**group, **stats.get(path, {})}
        arrays |= {f"{path}/{name}": array for name, array in own.items()}
    arrays |= {f"{network.head}/{name}": array for name, array in _head(method, trained["head"]).items()}
    arrays = {path: jnp.asarray(array, network.leaves[path].dtype) for path, array in arrays.items()}
    module = network.module(arrays)
    if isinstance(module, Linen):
        return module.variables()
    return nnx.state(module, nnx.Not(nnx.RngState))


def _kernel(method: Method, path: str, tiles: Tiles, masks: dict[str, Any]) -> jax.Array:
    """A layer's kernel as the task has it."""
    rule = method.rule
    if rule is None:
        return held_weights(tiles)
    changed, gain = rule.apply(tiles, masks[path])
    held = held_weights(changed, gain)
    if not rule.computes_beside:
        return held
    beside = rule.beside_kernel(tiles, masks[path])
    if beside is None:
        allowed = "a method whose digital part is a product (Rule.beside_kernel): no kernel stands for another"
        raise MethodError("method", method.name, allowed)
    return held + beside


def _unfolded(folded: dict[str, jax.Array], epsilon: float) -> dict[str, jax.Array]:
    """A batch norm whose scale and bias are the two numbers of a folded one."""
    slope, shift = (folded[name].astype(jnp.float32) for name in ("slope", "shift"))
    variance = jnp.full_like(slope, 1.0 - epsilon)
    return {"scale": slope, "bias": shift, "mean": jnp.zeros_like(slope), "var": variance}


def _head(method: Method, head: dict[str, Any]) -> dict[str, Any]:
    """A task's head as the arrays of a dense layer."""
    full = method.head.full(head)
    if full.keys() != {"kernel", "bias"}:
        allowed = "a linear one, whose kernel and bias the module's own layer takes"
        raise MethodError("method.head", type(method.head).__name__, allowed)
    return full
