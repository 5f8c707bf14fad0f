"""What feeds a converter on an accelerator, against float64: codes do not move; by the default precision they would.

A CPU computes the accelerators' form, too: ``known(False)`` traces it. What their matrix units round is rounded here by
hand, so that a CPU shows what they would make of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiments.gpu.codes import CELL, REAL, SHAPES, exact_sums, layer, moved, seen
from jax import lax

import xbm_jax as xbm
from cost import slow_but
from xbm_jax.crossbar import Tiles, plan, program, read
from xbm_jax.crossbar.primitives.exact import PARTS, bfloat16_parts, few_digits_product
from xbm_jax.crossbar.primitives.platforms import known
from xbm_jax.crossbar.reading import loops
from xbm_jax.crossbar.reading.sums import input_codes


def sums_of(tiles: Tiles, x: jax.Array, rounded: Callable[[jax.Array], jax.Array] = lambda a: a) -> list[np.ndarray]:
    """What an accelerator's form makes of every tile and cycle."""
    with known(False):
        made = seen(tiles.plan, rounded(input_codes(tiles, x)), rounded(tiles.effective))
        return [np.asarray(s, np.float64) for s in made]


CASES = [
    *((shape, rows, "real", {}) for shape in SHAPES for rows in (64, 128)),
    ("dense", 64, "ideal", {}),
    ("conv", 128, "ideal", {}),
    ("dense", 64, "real", {"dac_bits": 1}),
    ("dense", 64, "real", {"encoding": "offset"}),
    ("dense", 64, "real", {"subtract": "digital"}),
]


@pytest.mark.parametrize(("shape", "rows", "cells", "options"), slow_but([CASES[0], CASES[2], CASES[8]], CASES))
def test_codes_are_those_of_float64(shape: str, rows: int, cells: str, options: dict[str, Any]) -> None:
    """At most one conversion in 10,000 gives a neighbouring code, none another; of ideal cells all are equal."""
    tiles, x = layer(shape, rows, REAL if cells == "real" else xbm.Ideal(), **options)
    found, exact = sums_of(tiles, x), exact_sums(tiles, x)
    share, steps = moved(tiles, found, exact)
    assert share <= 1e-4 and steps <= 1
    if cells == "ideal":
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("mantissa_bits", "least"), [(10, 2e-4), (7, 2e-3)], ids=["TF32", "bfloat16"])
def test_the_default_precision_would_move_them(mantissa_bits: int, least: float) -> None:
    """What GPUs and TPUs do with float32 that nobody asked to be more: the test above can fail."""
    tiles, x = layer("dense")
    rounded = sums_of(tiles, x, lambda a: lax.reduce_precision(a, 8, mantissa_bits))
    assert moved(tiles, rounded, exact_sums(tiles, x))[0] > least


def test_two_parts_of_conductances_are_fewer_digits_than_float32() -> None:
    """Why there are three: with two some sums are wrong by ten times float32's rounding."""
    tiles, x = layer("dense")
    kernel, exact = tiles.effective[0, :64], exact_sums(tiles, x)[0][..., 0, :]

    def error(parts: int) -> float:
        made = few_digits_product(lambda x, k, _: jnp.matmul(x, k), input_codes(tiles, x)[:, :64], kernel, parts)
        return float(np.max(np.abs(np.asarray(made, np.float64) - exact)) / np.max(np.abs(exact)))

    assert 10 * error(3) < error(2) and error(3) < 5e-7


def test_parts_add_up_to_the_number_and_each_is_one_of_bfloat16() -> None:
    values = jnp.asarray(
        np.random.default_rng(0).normal(size=1000) * 10.0 ** np.arange(-20, 20).repeat(25), jnp.float32
    )
    parts = jax.jit(bfloat16_parts)(values)
    assert len(parts) == PARTS
    np.testing.assert_array_equal(sum(np.asarray(part, np.float64) for part in parts), np.asarray(values, np.float64))
    for part in parts:
        np.testing.assert_array_equal(part.astype(jnp.bfloat16).astype(jnp.float32), part)


@pytest.mark.parametrize("shape", ["dense", "conv"])
def test_what_is_lowered_is_one_product_of_ideal_cells_and_three_of_real_ones(shape: str) -> None:
    """bfloat16 for dense kernels, the units' own precision for convolutions; on a CPU one product of float32."""

    def count(device: Any, platform: str) -> tuple[int, int]:
        tiles, x = layer(shape, 1024, device)
        text = jax.jit(lambda t, x: read(t, x)).trace(tiles, x).lower(lowering_platforms=(platform,)).as_text()
        lines = [line for line in text.splitlines() if "dot_general" in line or "stablehlo.convolution" in line]
        few = [line for line in lines if "bf16" in line or "HIGHEST" not in line]
        return len(lines), len(few)

    for platform in ("cuda", "tpu"):
        assert (count(xbm.Ideal(), platform), count(REAL, platform)) == ((1, 1), (3, 3))
    assert count(REAL, "cpu") == (1, 0)


def test_gradients_have_all_digits() -> None:
    rng = np.random.default_rng(0)
    x, kernel = (
        jnp.asarray(rng.integers(0, 256, (4, 8)), jnp.float32),
        jnp.asarray(rng.normal(size=(8, 3)), jnp.float32),
    )

    def units(x: jax.Array, kernel: jax.Array, precision: lax.Precision) -> jax.Array:
        bits = 23 if precision == lax.Precision.HIGHEST else 7
        return jnp.matmul(lax.reduce_precision(x, 8, bits), lax.reduce_precision(kernel, 8, bits))

    def loss(product: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(product(x, kernel) / 100))

    ours = jax.grad(loss, (1, 2))(lambda x, k: few_digits_product(units, x, k, PARTS), x, kernel)
    plain = jax.grad(loss, (1, 2))(jnp.matmul, x, kernel)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_line_gains_within_the_weights_are_no_integers() -> None:
    """Gated before the converter, ideal cells have as many digits as their gains."""
    spec = xbm.CrossbarSpec(rows=64, cell=CELL, adc=xbm.Adc(bits=8, range=(-4e5, 4e5)))
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(64, 8)), jnp.float32)
    tiles = program(kernel, plan(kernel, spec), jax.random.key(0), input_scale=0.01)
    assert tiles.plan.integer_cells
    x, gain = jnp.ones((2, 64)), jnp.full((1, 2, 8), 0.3)

    def parts(gain: jax.Array | None) -> int:
        lowered = jax.jit(lambda t, x, g: read(t, x, g)).trace(tiles, x, gain).lower(lowering_platforms=("tpu",))
        return sum("dot_general" in line and "bf16" in line for line in lowered.as_text().splitlines())

    assert (parts(None), parts(gain)) == (1, 3)


# ---------------------------------------------------------------------------------------------------------------------
# Noise: of a key, an element and nothing else

NOISY = xbm.Gaussian(read_noise=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["dense", "conv", "groups"])
def test_one_key_is_one_noise_on_every_platform_and_in_every_order(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles, x = layer(shape, device=NOISY)
    gain, key = jnp.ones((tiles.plan.row_tiles, tiles.plan.columns)), jax.random.key(5)

    def answer(on_cpu: bool) -> np.ndarray:
        with known(on_cpu):
            return np.asarray(jax.jit(lambda t, x, g, k: read(t, x, g, k))(tiles, x, gain, key))

    first = answer(True)
    assert tiles.adc is not None and tiles.input_scale is not None
    step = float(jnp.max(tiles.adc.lsb) * jnp.min(tiles.weight_scale) * tiles.input_scale)
    quiet = read(tiles.replace(read_variance=None), x, gain)
    assert np.mean(np.abs(first - quiet) > step / 4) > 0.3  # there is noise
    others = [answer(False)]
    if tiles.plan.groups == 1:
        monkeypatch.setattr(loops, "_TALL", 1)
        jax.clear_caches()
        others.append(answer(False))
    for other in others:
        # Another order of a sum may put a conversion over the edge of a code; other noise moves most of them.
        assert np.mean(np.abs(other - first) > step / 4) < 1e-3


def test_counters_are_of_elements_whatever_shares_the_work() -> None:
    """JAX's own setting: with it bits do not depend on how an array is spread over devices."""
    assert jax.config.jax_threefry_partitionable  # type: ignore[attr-defined]
