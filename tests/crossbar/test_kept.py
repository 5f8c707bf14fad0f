"""Codes that are kept for the gradient of gains: the same gradients, no product twice, and no memory that grows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from crossbar.jaxprs import products, traced
from xbm_jax.crossbar import Adc, Cell, Conv, CrossbarSpec, Gaussian, Tiles, plan, program, read
from xbm_jax.crossbar.primitives.adc import code, code_of, convert, granular_range, snapped_range, value, word
from xbm_jax.crossbar.reading import kept
from xbm_jax.crossbar.reading.fused import fused_reads
from xbm_jax.crossbar.reading.sums import Converters, input_codes, tile_sums

SAME = Conv(padding="SAME")
BASE = CrossbarSpec(rows=16, cell=Cell(7, 10.0), adc=Adc(6, "max", "tile"), device=Gaussian(0.02))
SHAPE = (3, 3, 6, 4)  # four tiles
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "codes from an offset": {"adc": Adc(5, (-310.0, 620.0))},
    "codes from zero, digital": {"subtract": "digital", "adc": Adc(8, "max", "column")},
    "slices and cycles": {"cell": Cell(4, 10.0), "dac_bits": 4},
    "offset encoding": {"encoding": "offset", "adc": Adc(8, "max")},
    "mismatch": {"adc": Adc(5, "max", gain_mismatch=0.05, offset_mismatch_lsb=0.5)},
    "noise of converters": {"adc": Adc(6, "max", noise_lsb=1.0)},
    "read noise": {"device": Gaussian(0.02, read_noise=0.2)},
    "clipped left out": {"adc": Adc(5, (-310.0, 620.0), clip_gradient="zero")},
}


def given(changes: dict[str, Any], shape: tuple[int, ...] = SHAPE, conv: Conv | None = SAME, batch: int = 8) -> Any:
    """A kernel on arrays, inputs and gains."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=shape), jnp.float32)
    planned = plan(kernel, BASE.replace(**changes), conv, signed_inputs=True)
    tiles = program(kernel, planned, jax.random.key(0), input_scale=0.02)
    size = (batch, shape[-2]) if conv is None else (batch, 5, 5, shape[-2])
    gain = jnp.asarray(rng.choice([0.0, 1.0, -0.5, 0.75], (planned.row_tiles, shape[-1])), jnp.float32)
    return tiles, jnp.asarray(rng.normal(size=size), jnp.float32), gain


def loss(tiles: Tiles, x: jax.Array, gain: jax.Array) -> jax.Array:
    return jnp.sum(jnp.sin(read(tiles, x, gain, jax.random.key(3))))


def gradients(jit: Any, tiles: Tiles, x: jax.Array, gain: jax.Array) -> Any:
    """Value and gradients of inputs and gains; a function of its own each time, so that it is traced anew."""
    return jit(jax.value_and_grad(lambda x, gain: loss(tiles, x, gain), (0, 1)))(x, gain)


def keeps(tiles: Tiles, x: jax.Array, gain: jax.Array) -> bool:
    return kept.keeps(tiles.plan, input_codes(tiles, x), gain, Converters(tiles.adc))


@pytest.mark.parametrize("changes", slow_but(["plain", "slices and cycles", "noise of converters"], CASES))
def test_the_gain_gradient_is_that_of_a_plain_read(changes: dict[str, Any]) -> None:
    """Against JAX's own derivative of the sum over tiles."""
    tiles, x, gain = given(changes)
    codes, key = input_codes(tiles, x), jax.random.key(3)
    converters = Converters(tiles.adc, tiles.mismatch, tiles.read_variance, tiles.curvature, key)
    assert keeps(tiles, x, gain)
    scale = tiles.weight_scale * tiles.input_scale

    def plain(gain: jax.Array) -> jax.Array:
        sums = tile_sums(tiles.plan, codes, tiles.effective, converters)
        return jnp.sum(jnp.sin(sum(partial_sum * gain[t] for t, partial_sum in sums) * scale))

    (_, (_, ours)), wanted = gradients(quick_jit, tiles, x, gain), quick_jit(jax.grad(plain))(gain)
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


SEVERAL = ("slices and cycles", "offset encoding")
"""Terms a tile: two programs may add a product to a sum with one rounding or with two."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in SEVERAL])
def test_kept_and_recomputed_agree_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = given(CASES[name])
    assert keeps(*chip)
    ours = gradients(jax.jit, *chip)
    monkeypatch.setattr(kept, "MOST", 0)
    assert not keeps(*chip)
    jax.tree.map(np.testing.assert_array_equal, ours, gradients(jax.jit, *chip))


@pytest.mark.slow
def test_tasks_under_vmap_keep_what_each_alone_does() -> None:
    tiles, x, gain = given({})
    of_task = jax.grad(lambda gain, x: loss(tiles, x, gain))
    gains, inputs = jnp.stack([gain, 1 - gain, gain**2]), jnp.stack([x, -x, 0.5 * x])
    together = jax.jit(jax.vmap(of_task))(gains, inputs)
    alone = np.stack([jax.jit(of_task)(*each) for each in zip(gains, inputs, strict=True)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_no_product_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a tile forward, and one for the inputs."""
    tiles, x, gain = given({})

    def count() -> int:
        of_both = jax.grad(lambda x, gain: loss(tiles, x, gain), (0, 1))
        return len(list(products(traced(of_both, x, gain).jaxpr)))

    ours = count()
    monkeypatch.setattr(kept, "MOST", 0)
    assert (count() - ours) % tiles.plan.row_tiles == 0 and count() > ours


KEPT: dict[str, tuple[bool, dict[str, Any], tuple[int, ...], Conv | None]] = {
    "tiles": (True, {}, SHAPE, SAME),
    "sixteen tiles": (True, {}, (1, 1, 256, 4), SAME),
    "seventeen tiles": (False, {}, (1, 1, 272, 4), SAME),
    "sixteen conversions": (True, {"cell": Cell(4, 10.0), "dac_bits": 4}, SHAPE, SAME),
    "more cycles": (False, {"cell": Cell(4, 10.0), "dac_bits": 2}, SHAPE, SAME),
    "nine bits": (False, {"adc": Adc(9, "max")}, SHAPE, SAME),
    "ideal": (False, {"adc": Adc(None)}, SHAPE, SAME),
    "a loop over tiles": (False, {}, (64, 4), None),
    "one dense tile": (True, {}, (16, 4), None),
}


@pytest.mark.parametrize(("wanted", "changes", "shape", "conv"), KEPT.values(), ids=KEPT)
def test_which_reads_keep_their_codes(
    wanted: bool, changes: dict[str, Any], shape: tuple[int, ...], conv: Conv | None
) -> None:
    tiles, x, gain = given(changes, shape, conv)
    assert keeps(tiles, x, gain) is wanted
    assert not kept.keeps(tiles.plan, input_codes(tiles, x), None, Converters(tiles.adc))  # nothing is asked of gains


def test_one_kernel_keeps_none() -> None:
    """It gives no codes: its gradient computes sums again."""
    tiles, x, gain = given({})

    def bytes_of() -> int:
        return str(jax.make_jaxpr(jax.grad(lambda gain: loss(tiles, x, gain)))(gain)).count("i8[")

    assert bytes_of() > 0
    with fused_reads("on"):
        assert bytes_of() == 0


def test_memory_does_not_grow_with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 rows as 8, 16 and 64 tiles: beside what an answer takes, at most a byte a conversion that is kept."""

    def of_output(rows: int) -> tuple[float, float]:
        """Bytes of temporary memory for each output: of an answer, and of a step."""
        tiles, x, gain = given({"rows": rows}, (1, 1, 512, 64), Conv(), batch=64)
        assert tiles.plan.row_tiles == 512 // rows
        answer, step = (lambda x, gain: loss(tiles, x, gain)), jax.grad(lambda x, gain: loss(tiles, x, gain), (0, 1))
        found = (quick_jit(f).lower(x, gain).compile().memory_analysis() for f in (answer, step))
        return tuple(own.temp_size_in_bytes / (64 * 5 * 5 * 64) for own in found)  # type: ignore[union-attr,return-value]

    steps = {rows: of_output(rows) for rows in (64, 32, 8)}
    for rows, (answer, step) in steps.items():
        assert step <= answer + min(512 // rows, kept.MOST) + 16  # beside dy, dx and inputs
    assert steps[8][1] <= steps[64][1] + 4
    monkeypatch.setattr(kept, "MOST", 0)
    assert of_output(64)[1] > steps[64][1]


@pytest.mark.parametrize("grid", [granular_range(8), granular_range(8, positive=True), snapped_range(-30.0, 97.0, 8)])
def test_a_byte_holds_every_code(grid: Any) -> None:
    sums = jnp.linspace(-400.0, 400.0, 4001)[:, None, None, None, None]
    codes = code(sums, grid, 8)
    bytes_ = word(codes, grid, 8)
    assert bytes_.dtype == jnp.int8 and len(np.unique(bytes_)) == 256
    np.testing.assert_array_equal(code_of(bytes_, grid, 8), codes)
    np.testing.assert_array_equal(value(codes, grid), convert(sums, grid, 8))
