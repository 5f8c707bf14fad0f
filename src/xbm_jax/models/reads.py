"""How often each layer's columns are read for one example: what a count of operations, conversions or energy needs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Tiles
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import ModelError
from xbm_jax.masks import methods
from xbm_jax.models.calibration import source_trained
from xbm_jax.models.chip import Chip
from xbm_jax.models.modules.forms import Form, Read
from xbm_jax.models.passes import forward
from xbm_jax.promotion import numpy_promotion

__all__ = ["driven_lines", "reads_in_order", "reads_per_example"]


@numpy_promotion
def reads_per_example(chip: Chip, inputs: Any) -> dict[str, int]:
    """Reads of each column of a layer for one example, all calls of the layer together; nothing is computed.

    A dense layer of one vector is read once, a convolution once per output pixel, a projection of tokens once per
    token; a transposed convolution once per output pixel that an input goes into. Each read of a column is one
    conversion per row tile, slice and cycle; an array of several row tiles is read once for each of them
    (``plan.tiles_per_array``). The layer's multiply-adds are ``reads * K * N``, times :func:`driven_lines`.

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
    reads, ((count,),) = {path: sum(calls) for path, (calls, _) in _all_reads(chip, inputs).items()}, examples
    if uneven := [path for path, total in reads.items() if total % count]:
        raise ModelError(", ".join(uneven), "reads shared between examples", "layers that read every example alike")
    return {path: total // count for path, total in reads.items()}


@numpy_promotion
def driven_lines(chip: Chip, inputs: Any) -> dict[str, float]:
    """Share of a layer's word lines, over its reads, at which an input stands, by path; 1 for most layers.

    The rest are at rest whatever the inputs: zeros that a transposed convolution, or one of a dilated input, puts
    between them. Padding counts as inputs do. Arguments as of :func:`reads_per_example`.
    """
    found = {path: (sum(reads), sum(lines)) for path, (reads, lines) in _all_reads(chip, inputs).items()}
    return {path: found[path][1] / found[path][0] if path in found else 1.0 for path in chip.tiles}


@dataclass(frozen=True)
class _Counted:
    """A form that notes for each call how often arrays are read, and the sum of the shares of driven lines."""

    form: Form
    reads: list[int]
    lines: list[float]

    def answer(self, read: Read, x: jax.Array, bias: jax.Array | None) -> jax.Array:
        driven = self.form.driven(x.shape)

        def counted(x: jax.Array) -> jax.Array:
            y = read(x)
            self.reads.append(round(math.prod(y.shape[:-1]) * driven.answers))
            self.lines.append(self.reads[-1] * driven.lines)
            return y

        return self.form.answer(counted, x, bias)


def _all_reads(chip: Chip, inputs: Any) -> dict[str, tuple[list[int], list[float]]]:
    """Of all of the inputs together, call by call: reads, and driven lines in units of a read's."""
    leaves, structure = jax.tree.flatten((chip, inputs))
    return _traced_reads(structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves))


# A pass is traced for it, and all tasks of a chip ask the same.
@lru_cache(maxsize=64)
def _traced_reads(structure: Any, shapes: tuple[tuple[Any, Any], ...]) -> dict[str, tuple[list[int], list[float]]]:
    """:func:`_all_reads` of a chip and inputs that have this structure, and leaves of these shapes and dtypes."""
    calls: dict[str, tuple[list[int], list[float]]] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
        calls.setdefault(path, found[path])  # in the order of the first calls
        return product(x, jnp.zeros(tiles.plan.kernel_shape, x.dtype), tiles.plan.conv)

    def run(chip: Chip, inputs: Any) -> None:
        counting = chip.replace(network=dataclasses.replace(chip.network, forms=forms))
        forward(counting, methods.head_only(), source_trained(chip), chip.stats, inputs, layer_read=observe)

    chip, inputs = jax.tree.unflatten(structure, [jax.ShapeDtypeStruct(*shape) for shape in shapes])
    found: dict[str, tuple[list[int], list[float]]] = {path: ([], []) for path in chip.tiles}
    forms: Any = {path: _Counted(form, *found.get(path, ([], []))) for path, form in chip.network.forms.items()}
    jax.eval_shape(run, chip, inputs)
    return calls
