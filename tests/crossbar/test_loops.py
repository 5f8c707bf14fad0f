"""In whatever order the tiles are taken: the same numbers.

Ideal cells hold integers, so analog sums are exact and codes equal; what is left is the rounding of their weighted sum.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from crossbar.jaxprs import traced
from xbm_jax.crossbar import Adc, Cell, Conv, CrossbarSpec, Gaussian, Tiles, plan, program, read
from xbm_jax.crossbar.primitives.platforms import known
from xbm_jax.crossbar.reading import loops
from xbm_jax.crossbar.reading.sums import Converters
from xbm_jax.crossbar.writing.plans import Plan
from xbm_jax.layout import mesh

SERIAL = CrossbarSpec(rows=8, dac_bits=2, cell=Cell(bits=3), adc=Adc(bits=5, range=(-40.0, 40.0)))


def layer(spec: CrossbarSpec, shape: tuple[int, ...], conv: Conv | None, *, signed: bool = False) -> Tiles:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    planned = plan(kernel, spec, conv, signed_inputs=signed)
    return program(kernel, planned, jax.random.key(0), input_scale=1 / 64)


def inputs(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).uniform(0, 3, shape), jnp.float32)


def assert_close(got: Any, wanted: Any) -> None:
    """To 1e-5 of the largest value: float rounding; one code more or less moves a value a thousand times as far."""
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-5 * float(jnp.max(jnp.abs(wanted))))


def gains(tiles: Tiles) -> jax.Array:
    shape = (tiles.plan.row_tiles, tiles.plan.columns)
    return jnp.asarray(np.random.default_rng(2).integers(0, 3, shape), jnp.float32)


@pytest.mark.parametrize(
    "spec",
    [
        SERIAL,
        SERIAL.replace(adc=Adc(bits=5, range="max", per="tile")),
        SERIAL.replace(adc=Adc(bits=5, range="max", per="column")),
        SERIAL.replace(adc=Adc(bits=5, range=(-40.0, 40.0), gain_mismatch=0.05, offset_mismatch_lsb=0.5)),
        SERIAL.replace(encoding="offset", adc=Adc(bits=6, range=(0.0, 120.0))),
        SERIAL.replace(subtract="digital", adc=Adc(bits=5, range=(0.0, 60.0))),
    ],
    ids=["explicit", "tile", "column", "mismatch", "offset", "digital"],
)
def test_a_dense_kernel_is_a_convolution_of_one_pixel(spec: CrossbarSpec) -> None:
    """The loop over dense tiles against the convolution's, which has none; 27 rows leave the last tile partly empty."""
    dense, conv = layer(spec, (27, 5), None), layer(spec, (1, 1, 27, 5), Conv())
    x, gain = inputs(6, 27), gains(dense)

    def loss(tiles: Tiles, x: jax.Array, gain: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = read(tiles, x, gain)
        return jnp.sum(y**2), y

    @jax.jit
    def everything(tiles: Tiles, x: jax.Array) -> Any:
        (dx, dgain), y = jax.grad(loss, (1, 2), has_aux=True)(tiles, x, gain)
        return (y, read(tiles, x), dx), dgain

    got, dgain = everything(dense, x)
    wanted, wanted_dgain = everything(conv, x[:, None, None])
    for a, b in zip(got, wanted, strict=True):
        assert_close(a, b[:, 0, 0])
    assert_close(dgain, wanted_dgain)


@pytest.mark.slow
def test_a_dense_read_draws_the_noise_of_the_convolution() -> None:
    """The same key, tile by tile: a loop must not give every tile the same draw."""
    noisy = SERIAL.replace(adc=Adc(bits=None), device=Gaussian(read_noise=0.05))
    dense, conv = layer(noisy, (27, 5), None), layer(noisy, (1, 1, 27, 5), Conv())
    x, gain, key = inputs(6, 27), gains(dense), jax.random.key(3)
    got = read(dense, x, gain, key, gain_at="columns")
    wanted = read(conv, x[:, None, None], gain, key, gain_at="columns")[:, 0, 0]
    assert_close(got, wanted)


CONVOLUTIONS = {
    "3x3": ((3, 3, 5, 6), Conv(padding="SAME"), {}),
    "stride": ((3, 3, 7, 4), Conv((2, 2), ((1, 1), (1, 1))), {}),
    "1x1": ((1, 1, 27, 5), Conv(), {}),
    "tap order": ((3, 3, 5, 6), Conv(padding="SAME"), {"row_order": "tap"}),
    "taller than an array": ((3, 3, 128, 2), Conv(padding="SAME"), {"row_order": "tap", "rows": 128}),
    "per tile": ((3, 3, 5, 6), Conv(padding="SAME"), {"adc": Adc(bits=5, range="max", per="tile")}),
    "mismatch": (
        (3, 3, 5, 6),
        Conv(padding="SAME"),
        {"adc": Adc(bits=5, range=(-40.0, 40.0), gain_mismatch=0.05, offset_mismatch_lsb=0.5)},
    ),
    "digital": ((3, 3, 5, 6), Conv(), {"subtract": "digital", "adc": Adc(bits=5, range=(0.0, 60.0))}),
    "noise": ((3, 3, 5, 6), Conv(), {"device": Gaussian(read_noise=0.05)}),
}


@pytest.mark.parametrize(("shape", "conv", "changes"), slow_but(["3x3", "mismatch", "digital"], CONVOLUTIONS))
def test_a_loop_over_channel_windows_is_the_tiles_one_by_one(
    shape: tuple[int, ...], conv: Conv, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads, gradients and gain gradients; windows hold foreign rows, and the last one is shifted to end in time."""
    tiles = layer(SERIAL.replace(**changes), shape, conv)
    x, gain = inputs(3, 6, 6, shape[2]), gains(tiles)

    def everything() -> Any:
        def loss(effective: jax.Array, x: jax.Array, gain: jax.Array) -> tuple[jax.Array, jax.Array]:
            y = read(tiles.replace(effective=effective), x, gain, jax.random.key(3), gain_at="columns")
            return jnp.sum(y**2), y

        return jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(tiles.effective, x, gain)

    assert not loops.orders(tiles.plan, x, Converters())[0].scanned
    wanted = everything()
    monkeypatch.setattr(loops, "_TALL", 2)
    assert loops.orders(tiles.plan, x, Converters())[0].scanned
    for got, want in zip(jax.tree.leaves(everything()), jax.tree.leaves(wanted), strict=True):
        assert_close(got, want)


def test_a_tall_convolution_is_one_loop_of_the_program() -> None:
    """What it compiles for does not grow with its tiles: one product forward, whatever the height."""
    tiles = layer(SERIAL, (3, 3, 32, 4), Conv(padding="SAME"))  # 36 tiles of 8 rows
    program_text = str(traced(lambda x: read(tiles, x), inputs(1, 4, 4, 32)))
    assert program_text.count("conv_general_dilated[") == 1


def test_which_convolutions_are_loops() -> None:
    """Tall ones anywhere; on a CPU also those whose partial sums leave its cache; never grouped or offset ones."""

    def scanned(plan: Plan, codes: jax.Array) -> tuple[bool, bool]:
        on_cpu, elsewhere = loops.orders(plan, codes, Converters())
        return on_cpu.scanned, elsewhere.scanned

    nine = layer(SERIAL, (3, 3, 8, 4), Conv(padding="SAME")).plan
    small, large = jnp.zeros((1, 8, 8, 8)), jnp.zeros((1, 128, 128, 8))
    assert scanned(nine, small) == (False, False)
    assert scanned(nine, large) == (True, False)
    tall = layer(SERIAL, (3, 3, 32, 4), Conv()).plan
    assert scanned(tall, small) == (True, True)
    offset = SERIAL.replace(encoding="offset", adc=Adc(bits=6, range=(0.0, 120.0)))
    assert scanned(layer(offset, (3, 3, 32, 4), Conv()).plan, small) == (False, False)
    assert scanned(layer(SERIAL, (3, 3, 32, 4), Conv(groups=2)).plan, small) == (False, False)


@pytest.mark.parametrize("batch", slow_but([6], [1, 6, 8]))
def test_a_batch_in_pieces_is_the_whole_batch(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_CONCURRENT", 16)
    tiles = layer(SERIAL, (3, 3, 4, 5), Conv(padding="SAME"))
    x, gain = inputs(batch, 4, 4, 4), gains(tiles)

    def value_and_grads() -> Any:
        return jax.jit(jax.value_and_grad(lambda x, gain: jnp.sum(read(tiles, x, gain) ** 2), (0, 1)))(x, gain)

    got = value_and_grads()
    with known(False):
        wanted = value_and_grads()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert_close(a, b)


def test_pieces_cover_the_batch_once_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "_CONCURRENT", 16)
    tiles = layer(SERIAL, (3, 3, 4, 5), Conv(padding="SAME"))  # 5 tiles: 4 pieces make 20 products
    codes = jnp.zeros((24, 4, 4, 4))

    def pieces(codes: jax.Array, converters: Converters) -> list[slice]:
        on_cpu, elsewhere = loops.orders(tiles.plan, codes, converters)
        assert elsewhere.slices == [slice(None)]
        return on_cpu.slices

    parts = pieces(codes, Converters())
    assert len(parts) == 4
    assert np.concatenate([np.arange(24)[part] for part in parts]).tolist() == list(range(24))
    noisy = Converters(variance=jnp.ones_like(tiles.effective))
    assert pieces(codes, noisy) == [slice(None)]  # one draw for the whole batch, on any machine
    assert pieces(codes[:1], Converters()) == [slice(0, 1)]
    with jax.set_mesh(mesh()):
        assert pieces(codes, Converters()) == [slice(None)]  # a slice would have to be gathered from several devices
