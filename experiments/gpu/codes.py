"""Whether an accelerator's products, draws and cells are those of the host: what a converter sees must not move."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from experiments.gpu.parts import Asked

import xbm_jax as xbm
from xbm_jax.crossbar import AdcRange, Conv, Tiles, column_sums, plan, program
from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.reading.sums import input_codes

__all__ = ["REAL", "SHAPES", "codes", "exact_sums", "layer", "moved", "seen"]

REAL = xbm.Gaussian(0.01)
CELL = xbm.Cell(bits=7, on_off=100)
_SAME = ((1, 1), (1, 1))
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Conv | None]] = {
    "dense": ((64, 576), (576, 64), None),
    "conv": ((4, 8, 8, 32), (3, 3, 32, 32), Conv(padding=_SAME)),
    "strided": ((4, 15, 15, 16), (3, 3, 16, 48), Conv(strides=(2, 2), padding=_SAME)),
    "groups": ((4, 8, 8, 32), (3, 3, 16, 32), Conv(padding=_SAME, groups=2)),
}
"""Inputs, kernels and geometries."""


def layer(
    shape: str, rows: int = 64, device: xbm.Device = REAL, examples: int | None = None, **options: Any
) -> tuple[Tiles, jax.Array]:
    """A kernel on arrays with 8-bit converters whose range is what their sums take, and an input."""
    rng = np.random.default_rng(0)
    x_shape, kernel_shape, conv = SHAPES[shape]
    kernel = jnp.asarray(rng.normal(size=kernel_shape), jnp.float32)
    x = jnp.asarray(np.maximum(rng.normal(size=(examples or x_shape[0], *x_shape[1:])), 0.0), jnp.float32)
    spec = xbm.CrossbarSpec(rows=rows, cell=CELL, adc=xbm.Adc(bits=8), device=device, **options)
    tiles = program(kernel, plan(kernel, spec, conv), jax.random.key(0), input_scale=float(x.max()) / 255)
    sums = [s for _, _, s in column_sums(tiles.plan, input_codes(tiles, x), tiles.effective)]
    top = max(float(jnp.max(jnp.abs(s))) for s in sums)
    step = jnp.full((1, 1, 1, 1), 2 * top / 255)
    return tiles.replace(adc=AdcRange(step, jnp.full_like(step, -128.0), 0 * step)), x


def seen(plan: Any, codes: jax.Array, effective: jax.Array) -> list[jax.Array]:
    """What the converters of every tile and cycle see."""
    return [sums for _, _, sums in column_sums(plan, codes, effective)]


def exact_sums(tiles: Tiles, x: jax.Array) -> list[np.ndarray]:
    """The same in float64, on the host."""
    given = np.asarray(input_codes(tiles, x)), np.asarray(tiles.effective)
    with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
        return [np.asarray(s) for s in seen(tiles.plan, *(jnp.asarray(a, jnp.float64) for a in given))]


def moved(tiles: Tiles, found: list[Any], exact: list[np.ndarray]) -> tuple[float, float]:
    """The share of conversions that give another code than in float64, and by how many steps at most."""
    assert tiles.adc is not None
    step = float(tiles.adc.lsb.reshape(()))

    def of(sums: list[Any]) -> np.ndarray:
        return np.stack([np.clip(np.round(np.asarray(s, np.float64) / step), -128, 127) for s in sums])

    by = np.abs(of(found) - of(exact))
    return float(np.mean(by > 0)), float(np.max(by))


def codes(asked: Asked) -> dict[str, Any]:
    """Codes that an accelerator moves, read by read; draws and programmed cells, to the host's.

    Raises:
        RuntimeError: more than one conversion in 10,000 gives another code, or one by more than a step.
    """
    found: dict[str, Any] = {}
    for shape in ("dense",) if asked.toy else SHAPES:
        for name, device in (("real", REAL), ("ideal", xbm.Ideal())):
            tiles, x = layer(shape, 64, device, None if asked.toy else 512 if shape == "dense" else 32)
            sums = jax.jit(partial(seen, tiles.plan))(input_codes(tiles, x), tiles.effective)
            share, steps = moved(tiles, sums, exact_sums(tiles, x))
            count = sum(s.size for s in sums)
            found[f"{shape}, {name} cells"] = {"moved": share, "by at most": steps, "conversions": count}
    found["draws"], found["cells"] = _to_the_host(_drawn), _to_the_host(_programmed)
    wrong = {name: one for name, one in found.items() if one.get("moved", 0) > 1e-4 or one.get("by at most", 0) > 1}
    if wrong:
        raise RuntimeError(f"codes moved: {found}")
    return found


def _drawn() -> jax.Array:
    return draws.coarse_normal(jax.random.key(3), (2**16,))


def _programmed() -> jax.Array:
    return layer("dense")[0].effective


def _to_the_host(make: Callable[[], jax.Array]) -> dict[str, float]:
    """The largest difference between the accelerator's and the host's, and the largest value."""
    here = np.asarray(make(), np.float64)
    with jax.default_device(jax.devices("cpu")[0]):
        host = np.asarray(make(), np.float64)
    return {"differ": float(np.max(np.abs(here - host))), "largest": float(np.max(np.abs(host)))}
