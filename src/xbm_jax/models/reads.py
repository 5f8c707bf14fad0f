"""How often each layer's columns are read for one example: what a count of operations, conversions or energy needs."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Tiles
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError
from xbm_jax.masks import methods
from xbm_jax.models.calibration import source_trained
from xbm_jax.models.chip import Chip
from xbm_jax.models.passes import forward
from xbm_jax.promotion import numpy_promotion

__all__ = ["reads_in_order", "reads_per_example"]


@numpy_promotion
def reads_per_example(chip: Chip, inputs: Any) -> dict[str, int]:
    """Reads of each column of a layer for one example, all calls of the layer together; nothing is computed.

    A dense layer of one vector is read once, a convolution once per output pixel, a projection of tokens once per
    token. Each read of a column is one conversion per row tile, slice and cycle; an array of several row tiles is read
    once for each of them (``plan.tiles_per_array``). The layer's multiply-adds are ``reads * K * N``.

    Args:
        chip: programmed; it need not be calibrated.
        inputs: arrays or ``jax.ShapeDtypeStruct`` of what :func:`forward` takes, examples along the leading axis:
            uint8 [n, H, W, C] for networks of images.

    Returns:
        Reads by path of every layer on arrays, in the chip's order; 0 for one that is never called.

    Raises:
        ModelError: inputs without examples, or a layer whose reads are not the same for each of them.
    """
    reads = reads_in_order(chip, inputs)
    return {path: reads.get(path, 0) for path in chip.tiles}


@numpy_promotion
def reads_in_order(chip: Chip, inputs: Any) -> dict[str, int]:
    """:func:`reads_per_example`, in the order in which a pass calls the layers; those never called are left out."""
    examples = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(inputs)}
    if len(examples) != 1 or not all(sum(count) for count in examples):
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(inputs)]
        raise ModelError("inputs", shapes, "arrays with one leading axis of at least one example")
    reads, ((count,),) = _all_reads(chip, inputs), examples
    if uneven := [path for path, total in reads.items() if total % count]:
        raise ModelError(", ".join(uneven), "reads shared between examples", "layers that read every example alike")
    return {path: total // count for path, total in reads.items()}


def _all_reads(chip: Chip, inputs: Any) -> dict[str, int]:
    """Of all of the inputs together."""
    reads: dict[str, int] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        kernel = jnp.zeros(tiles.plan.kernel_shape, x.dtype)
        y = product(x, kernel, tiles.plan.conv)
        reads[path] = reads.get(path, 0) + math.prod(y.shape[:-1])
        return y

    def run(chip: Chip, inputs: Any) -> None:
        forward(chip, methods.head_only(), source_trained(chip), chip.stats, inputs, layer_read=observe)

    jax.eval_shape(run, chip, inputs)
    return reads
