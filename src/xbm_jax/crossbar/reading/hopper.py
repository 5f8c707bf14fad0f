"""The fused read's kernel for NVIDIA GPUs from Hopper on, in Pallas for Mosaic GPU; imported where it is used alone.

A block computes ``m`` by ``n`` outputs. It goes through tiles, cycles and conversions; operands of the next ones are
on their way meanwhile. One ``wgmma`` for each part of the cells gives a tile's sums in registers, where they are
converted, weighed and added to the outputs.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as gpu

from xbm_jax.crossbar.reading.operands import UNIT, Operands

__all__ = ["Block", "block_of", "converted_sums"]


class Block(NamedTuple):
    """Outputs of one block, [m, n], and how many steps' operands are in its memory."""

    m: int
    n: int
    steps: int


_SHARED_BYTES = 200_000
"""Of a multiprocessor's memory, what operands may take: 227 KiB less what outputs and barriers do."""


def block_of(made: Operands) -> Block:
    """A block whose operands fit, as many steps ahead as they may be, four at most."""
    n = 128 if made.parts * made.height <= 128 and made.cells.shape[1] > 64 else 64
    m = UNIT
    bytes_of_step = 2 * made.height * (m + made.parts * n) + 16 * n
    return Block(m, n, max(1, min(4, _SHARED_BYTES // bytes_of_step)))


def converted_sums(made: Operands, bits: int, block: Block | None = None, *, interpret: bool = False) -> jax.Array:
    """The outputs [M, N], float32, of converters with ``2**bits`` codes."""
    block = block or block_of(made)
    (rows, _), (_, columns) = made.x.shape, made.cells.shape
    x = _filled(made.x, 0, block.m)
    cells, grid = _filled(made.cells, 1, block.n), _filled(made.grid, 2, block.n, 1.0)  # no step of zero
    call = gpu.kernel(
        lambda *refs, **scratch: _kernel(made, bits, block, *refs, **scratch),
        out_type=jax.ShapeDtypeStruct((x.shape[0], cells.shape[1]), jnp.float32),
        grid=(x.shape[0] // block.m, cells.shape[1] // block.n),
        grid_names=("m", "n"),
        scratch_types={"kept": gpu.SMEM((block.m, block.n), jnp.float32)},
        compiler_params=gpu.CompilerParams(lowering_semantics=gpu.LoweringSemantics.Warpgroup),
        interpret=_interpreter() if interpret else False,
    )
    return call(x, cells, grid)[:rows, :columns]


def _filled(array: jax.Array, axis: int, to: int, value: float = 0.0) -> jax.Array:
    """An axis filled up to a multiple."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % to)
    return jnp.pad(array, widths, constant_values=value)


def _kernel(made: Operands, bits: int, block: Block, x: Any, cells: Any, grid: Any, out: Any, *, kept: Any) -> None:
    """What one block does."""
    at_m, at_n = jax.lax.axis_index("m"), jax.lax.axis_index("n")
    height, (_, cycles, conversions) = made.height, made.counts
    # As `wgmma` wants its operands: rows of 128 bytes, swizzled.
    rows = (gpu.TilingTransform((8, UNIT)), gpu.SwizzleTransform(2 * UNIT))

    def step(_: Any, x: Any, cells: Any, grid: Any, total: jax.Array) -> jax.Array:
        def sums(accumulator: Any) -> jax.Array:
            for part in range(made.parts):
                gpu.wgmma(accumulator, x, cells.at[pl.ds(part * height, height)])
            return accumulator[...]

        seen = pl.run_scoped(sums, gpu.WGMMAAccumulatorRef((block.m, block.n), jnp.float32))
        return total + _converted(seen, [_of_columns(grid[0, i], block) for i in range(4)], bits)

    read = gpu.emit_pipeline(
        step,
        grid=made.counts,
        in_specs=[
            gpu.BlockSpec((block.m, height), lambda t, j, v: (at_m, t * cycles + j), transforms=rows),
            gpu.BlockSpec((made.parts * height, block.n), lambda t, j, v: (t * conversions + v, at_n), transforms=rows),
            gpu.BlockSpec((1, 4, block.n), lambda t, j, v: ((t * cycles + j) * conversions + v, 0, at_n)),
        ],
        max_concurrent_steps=min(block.steps, math.prod(made.counts)),
        init_carry=jnp.zeros((block.m, block.n), jnp.float32),
    )
    kept[...] = read(x, cells, grid)
    gpu.commit_smem()
    gpu.copy_smem_to_gmem(kept, out.at[pl.ds(at_m * block.m, block.m), pl.ds(at_n * block.n, block.n)])
    gpu.wait_smem_to_gmem(0)


def _converted(sums: jax.Array, grid: list[jax.Array], bits: int) -> jax.Array:
    """What the converters make of their sums, weighed: :func:`xbm_jax.crossbar.primitives.adc.convert`."""
    lsb, low, offset, factor = grid
    code = jnp.clip(jnp.round((sums - offset) / lsb), low, low + (2.0**bits - 1))
    return (offset + lsb * code) * factor


def _of_columns(values: jax.Array, block: Block) -> jax.Array:
    """A value a column, for every row."""
    return jax.lax.broadcast_in_dim(values, (block.m, block.n), (1,))


def _interpreter() -> Any:
    """JAX's own interpreter of such kernels, which has no public name yet."""
    from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams

    return InterpretGPUParams()
