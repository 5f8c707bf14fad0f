"""From a chip back to plain Flax variables: what its cells hold now, in the structure of the user's own module."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from xbm_jax.crossbar import Tiles, linear_kernel
from xbm_jax.models.chip import Chip
from xbm_jax.models.modules.linen import Linen
from xbm_jax.promotion import numpy_promotion

__all__ = ["flax_variables", "held_weights"]


def held_weights(tiles: Tiles) -> jax.Array:
    """The weights that a programmed kernel stands for as it is now, of the shape in which it lies on arrays.

    ``s_w`` times what a read with ideal converters multiplies input codes by: levels, programming error, stuck cells,
    drift, the digital factor for it, and wires are in it; read noise, curves and converters are not.
    """
    held = linear_kernel(tiles.plan, tiles.effective) * tiles.weight_scale
    return held if tiles.drift_factor is None else held * tiles.drift_factor


@numpy_promotion
def flax_variables(chip: Chip) -> Any:
    """Variables with which the user's own module, without a chip, computes what the chip holds.

    Kernels are :func:`held_weights`; norms, head and what stayed digital are the source task's. The module answers as
    ``xbm.predict(chip, xbm.source_task(chip), inputs)`` does where converters are ideal, up to the chip's rounding of
    inputs to codes. ``chip.at(t)`` gives those of a later time.

    Returns:
        Of a Linen module its collections, ``{"params": ...}``, for ``module.apply``; of an NNX module an ``nnx.State``
        for ``nnx.update(module, state)``, random state left out.
    """
    network = chip.network
    arrays = dict(chip.digital)
    for path, tiles in chip.tiles.items():
        name = f"{path}/kernel"
        arrays[name] = network.forms[path].own(held_weights(tiles), network.shapes[name])
    owned = {**chip.norms, network.head: chip.head}
    for path, group in [*owned.items(), *chip.stats.items()]:
        arrays |= {f"{path}/{name}": array for name, array in group.items()}
    arrays = {path: jnp.asarray(array, network.leaves[path].dtype) for path, array in arrays.items()}
    module = network.module(arrays)
    if isinstance(module, Linen):
        return module.variables()
    return nnx.state(module, nnx.Not(nnx.RngState))
