"""The fused read: that it is the plain one, and how fast it is beside it and beside a plain bfloat16 product."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.timing import interleaved
from experiments.gpu.codes import CELL, REAL, layer
from experiments.gpu.parts import Asked

import xbm_jax as xbm
from xbm_jax.crossbar import AdcRange, Tiles, plan, program
from xbm_jax.crossbar.reading import columns, fused, hopper
from xbm_jax.crossbar.reading.operands import Operands, operands
from xbm_jax.crossbar.reading.sums import Converters, input_codes

__all__ = ["kernel_is_right", "kernel_speed"]

BLOCKS = ((64, 64, 4), (64, 128, 2), (64, 128, 4), (128, 64, 2), (128, 128, 2))
"""Outputs of a block, and steps ahead, that are tried."""


def kernel_is_right(asked: Asked) -> dict[str, Any]:
    """The share of outputs that differ from the plain read's by a code or more, layer by layer.

    Raises:
        RuntimeError: more than one in a thousand.
    """
    found = {}
    for shape in ("dense",) if asked.toy else ("dense", "conv", "strided"):
        for name, device in (("real", REAL), ("ideal", xbm.Ideal())):
            for rows in (64,) if asked.toy else (64, 128):
                tiles, x = layer(shape, rows, device)
                found[f"{shape}, {rows} rows, {name} cells"] = _differ(tiles, x, interpret=_no_gpu())
    if max(found.values()) > 1e-3:
        raise RuntimeError(f"not the plain read: {found}")
    return found


def kernel_speed(asked: Asked, rows: int, ideal: bool) -> dict[str, Any]:
    """Milliseconds of every block that the card takes, and the share of a plain bfloat16 product's rate.

    Goals: 0.7 at 128 rows, 0.5 at 64.
    """
    m, k, n = (8, 2 * rows, 8) if asked.toy else (8192, 4096, 4096)
    tiles, codes, gain = _large(m, k, n, rows, xbm.Ideal() if ideal else REAL)
    pixels, wide = codes.astype(jnp.bfloat16), tiles.effective[0].astype(jnp.bfloat16)
    product = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))
    plain = jax.jit(partial(columns.accumulated, tiles.plan))
    converters = Converters(tiles.adc)
    seconds, rounds = (0.01, 1) if asked.toy else (0.3, 5)

    def to_product(call: Any) -> dict[str, float]:
        one = interleaved(call, lambda: product(pixels, wide), seconds=seconds, rounds=rounds)
        return {"ms": 1e3 * one.ours_seconds, "share_of_bfloat16": 1 / one.ratio}

    found: dict[str, Any] = {"plain read": to_product(lambda: plain(codes, tiles.effective, gain, converters))}
    ready = operands(tiles.plan, codes, tiles.effective, gain, converters)
    for block in BLOCKS[: 1 if asked.toy else None]:
        own = jax.jit(partial(_sums, ready, hopper.Block(*block), interpret=_no_gpu()))
        try:
            found[f"block {block}"] = to_product(lambda own=own: own(ready.x, ready.cells, ready.grid))
        except Exception as error:  # a block that does not fit is one of the things to find out
            found[f"block {block}"] = {"error": str(error).strip().splitlines()[0][:300]}
    if not any("ms" in one for name, one in found.items() if name.startswith("block")):
        raise RuntimeError(f"no block runs: {found}")
    return found | {"shape": [m, k, n]}


def _sums(ready: Operands, block: hopper.Block, x: Any, cells: Any, grid: Any, *, interpret: bool) -> jax.Array:
    return hopper.converted_sums(ready._replace(x=x, cells=cells, grid=grid), 8, block, interpret=interpret)


def _large(m: int, k: int, n: int, rows: int, device: xbm.Device) -> tuple[Tiles, jax.Array, jax.Array]:
    """A programmed kernel [k, n], codes of inputs [m, k], and a mask; one converter range is as good as any."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=(k, n)), jnp.float32)
    planned = plan(kernel, xbm.CrossbarSpec(rows=rows, cell=CELL, adc=xbm.Adc(bits=8), device=device))
    step = jnp.full((1, 1, 1, 1), 2048.0)
    tiles = program(kernel, planned, jax.random.key(0), input_scale=1 / 100)
    tiles = tiles.replace(adc=AdcRange(step, jnp.full_like(step, -128.0), 0 * step))
    codes = input_codes(tiles, jnp.asarray(np.maximum(rng.normal(size=(m, k)), 0.0), jnp.float32))
    return tiles, codes, jnp.asarray(rng.integers(0, 2, (planned.row_tiles, n)), jnp.float32)


def _differ(tiles: Tiles, x: jax.Array, *, interpret: bool) -> float:
    codes, converters = input_codes(tiles, x), Converters(tiles.adc)
    given = (codes, tiles.effective, None, converters)
    assert tiles.adc is not None
    ours = jax.jit(partial(fused.fused_sum, tiles.plan, interpret=interpret))(*given)
    plain = jax.jit(partial(columns.accumulated, tiles.plan))(*given)
    return float(jnp.mean(jnp.abs(ours - plain) > 0.5 * tiles.adc.lsb.reshape(())))


def _no_gpu() -> bool:
    """The kernel is interpreted where there is none."""
    return jax.devices()[0].platform == "cpu"
