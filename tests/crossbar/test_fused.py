"""The fused read, in the interpreter of its kernel, against the plain one; and that it is lowered for a GPU alone."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import xbm_jax as xbm
from cost import slow_but
from xbm_jax.crossbar import Conv, Tiles, plan, program, read
from xbm_jax.crossbar.primitives.adc import AdcRange
from xbm_jax.crossbar.reading import fused, hopper
from xbm_jax.crossbar.reading.columns import accumulated
from xbm_jax.crossbar.reading.gates import LineGains
from xbm_jax.crossbar.reading.operands import operands
from xbm_jax.crossbar.reading.sums import Converters, column_sums, input_codes
from xbm_jax.errors import SpecError
from xbm_jax.models import named_network

CELL, SAME = xbm.Cell(bits=7, on_off=100), Conv(padding=((1, 1), (1, 1)))
REAL = xbm.Gaussian(0.01)


def layer(kernel_shape: tuple[int, ...], x_shape: tuple[int, ...], conv: Conv | None, **options: Any) -> Any:
    """A kernel on arrays, an input, a mask of columns, and converters whose step is a power of two."""
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=kernel_shape), jnp.float32)
    x = jnp.asarray(np.maximum(rng.normal(size=x_shape), 0.0), jnp.float32)
    given = {"rows": 64, "cell": CELL, "adc": xbm.Adc(bits=8)} | options
    planned = plan(kernel, xbm.CrossbarSpec(**given), conv)
    tiles = program(kernel, planned, jax.random.key(0), input_scale=float(x.max()) / 255)
    top = max(float(jnp.max(jnp.abs(s))) for _, _, s in column_sums(planned, input_codes(tiles, x), tiles.effective))
    step = jnp.full((1, 1, 1, 1), 2.0 ** np.ceil(np.log2(2 * top / 300)))  # some sums clip
    tiles = tiles.replace(adc=AdcRange(step, jnp.full_like(step, -128.0), 0 * step))
    gain = jnp.asarray(rng.integers(0, 2, (planned.row_tiles, planned.columns)), jnp.float32)
    return tiles, x, gain


def both(tiles: Tiles, x: jax.Array, gain: jax.Array | None, **more: Any) -> tuple[np.ndarray, np.ndarray]:
    """The fused read's sums and the plain one's."""
    converters, codes = Converters(tiles.adc, **more), input_codes(tiles, x)
    assert fused.suits(tiles.plan, codes, gain, converters)
    given = (tiles.plan, codes, tiles.effective, gain, converters)
    return np.asarray(fused.fused_sum(*given, interpret=True)), np.asarray(accumulated(*given))


def close(tiles: Tiles, found: np.ndarray, plain: np.ndarray) -> None:
    """Equal for integers; else a conversion in a thousand may fall to the other side of the edge between two codes."""
    if tiles.plan.integer_cells:
        np.testing.assert_array_equal(found, plain)
        return
    assert tiles.adc is not None
    by = np.abs(found - plain) / float(tiles.adc.lsb.reshape(()))
    assert np.mean(by > 1e-3) < 1e-3 * tiles.plan.row_tiles and by.max() < 1.001


CASES: dict[str, tuple[Any, ...]] = {
    "dense": ((200, 70), (33, 200), None, {}),
    "dense of a sequence": ((64, 64), (2, 5, 64), None, {}),
    "dense, ideal cells": ((200, 70), (33, 200), None, {"device": xbm.Ideal()}),
    "dense, 128 rows": ((300, 64), (20, 300), None, {"rows": 128}),
    "dense, 128 rows, ideal cells": ((300, 130), (20, 300), None, {"rows": 128, "device": xbm.Ideal()}),
    "dense, 24 rows": ((100, 16), (20, 100), None, {"rows": 24}),
    "dense, bits of inputs": ((100, 16), (20, 100), None, {"dac_bits": 4}),
    "dense, slices": ((100, 16), (20, 100), None, {"cell": xbm.Cell(bits=4, on_off=100)}),
    "dense, lines converted apart": ((100, 16), (20, 100), None, {"subtract": "digital"}),
    "dense, own order": ((100, 16), (20, 100), None, {"row_order": xbm.ChannelOrder(np.arange(100)[::-1])}),
    "conv": ((3, 3, 8, 24), (2, 3, 4, 8), SAME, {}),
    "conv, strided": ((3, 3, 16, 24), (2, 7, 6, 16), Conv(strides=(2, 2), padding="SAME"), {"device": xbm.Ideal()}),
    "conv, dilated": ((3, 2, 8, 24), (2, 7, 6, 8), Conv(dilation=(1, 2)), {}),
    "conv, by taps": ((3, 3, 16, 24), (2, 6, 6, 16), SAME, {"row_order": "tap"}),
    "conv, own order": ((3, 3, 8, 8), (2, 6, 6, 8), SAME, {"row_order": xbm.ChannelOrder(np.arange(8)[::-1])}),
    "conv of one tap": ((1, 1, 96, 24), (2, 5, 5, 96), Conv(strides=(2, 2)), {}),
}


@pytest.mark.parametrize(
    ("kernel", "x", "conv", "options"),
    slow_but(["conv"], CASES),
)
def test_it_is_the_plain_read(kernel: Any, x: Any, conv: Conv | None, options: Any) -> None:
    tiles, inputs, gain = layer(kernel, x, conv, **{"device": REAL} | options)
    close(tiles, *both(tiles, inputs, gain))


def test_without_gains() -> None:
    tiles, x, _ = layer((64, 64), (64, 64), None, device=xbm.Ideal())
    close(tiles, *both(tiles, x, None))


@pytest.mark.slow
def test_gains_of_converted_lines() -> None:
    tiles, x, _ = layer((100, 16), (20, 100), None, device=REAL, subtract="digital")
    gain = jnp.asarray(np.random.default_rng(1).integers(0, 2, (2, 2, 16)), jnp.float32)
    close(tiles, *both(tiles, x, None, lines=LineGains(gain, None)))


NETWORKS = ("cifar-resnet20", "mobilenet-v2", "minilm-l6")


def shapes_of(name: str) -> list[tuple[int, ...]]:
    """The different kernels of a network, but for depthwise ones; those of attention as the matrices that they are."""
    found = {shape for path, shape in named_network(name, 10).shapes.items() if path.endswith("kernel")}
    matrices = {(shape[0], math.prod(shape[1:])) for shape in found if len(shape) in (2, 3)}
    return sorted(matrices | {shape for shape in found if len(shape) == 4 and shape[-2] > 1})


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", NETWORKS)
def test_all_layer_shapes_of_a_network(name: str) -> None:
    for kernel in shapes_of(name):
        conv = None if len(kernel) == 2 else Conv(padding="SAME")
        x = (3, kernel[0]) if conv is None else (1, 2, 3, kernel[-2])
        close_of = layer(kernel, x, conv, device=REAL)
        close(close_of[0], *both(*close_of))


@pytest.mark.slow
@pytest.mark.parametrize("block", [(64, 64, 1), (64, 128, 3), (128, 64, 2)])
def test_any_block_gives_the_same(block: tuple[int, int, int]) -> None:
    tiles, x, gain = layer((130, 70), (70, 130), None, device=xbm.Ideal())
    made = operands(tiles.plan, input_codes(tiles, x), tiles.effective, gain, Converters(tiles.adc))
    first, other = (hopper.converted_sums(made, 8, b, interpret=True) for b in (None, hopper.Block(*block)))
    np.testing.assert_array_equal(first, other)


def kernels_of(platform: str, use: fused.Fused, chip: Any, function: Any = read) -> int:
    """How often the kernel stands in what is lowered."""
    with fused.fused_reads(use):
        text = jax.jit(function).trace(*chip).lower(lowering_platforms=(platform,)).as_text()
    return text.count("custom_call @mosaic_gpu")


def gradients(tiles: Tiles, x: jax.Array, gain: jax.Array) -> Any:
    return jax.grad(lambda x, gain: jnp.sum(read(tiles, x, gain) ** 2), (0, 1))(x, gain)


def test_it_is_lowered_for_a_gpu_where_it_is_wanted() -> None:
    chip = layer((200, 70), (33, 200), None, device=REAL)
    assert [kernels_of(p, "on", chip) for p in ("cuda", "tpu", "cpu")] == [1, 0, 0]
    assert [kernels_of("cuda", use, chip) for use in ("off", "auto")] == [0, 0]
    assert kernels_of("cuda", "on", chip, gradients) == 1  # forward; backward is the plain read's


def test_a_switch_is_no_part_of_what_was_compiled_before() -> None:
    """Traced under one choice, a function is traced anew under another."""
    chip = layer((64, 64), (4, 64), None, device=REAL)
    function = jax.jit(read)

    def count() -> int:
        return function.trace(*chip).lower(lowering_platforms=("cuda",)).as_text().count("custom_call @mosaic_gpu")

    before = count()
    with fused.fused_reads("on"):
        within = count()
    assert (before, within, count()) == (0, 1, 0)


def test_tasks_of_one_vmap_read_plainly() -> None:
    tiles, x, gain = layer((64, 64), (4, 64), None, device=REAL)
    given = (tiles, jnp.stack([x, x]), jnp.stack([gain, 1 - gain]))
    assert kernels_of("cuda", "on", given, jax.vmap(read, (None, 0, 0))) == 0


def test_what_was_measured_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = layer((64, 64), (4, 64), None, device=REAL)
    for least, count in ((4 * 64, 1), (4 * 64 + 1, 0)):
        monkeypatch.setattr(fused, "MEASURED", {(64, 3): least})
        jax.clear_caches()
        assert kernels_of("cuda", "auto", chip) == count
    monkeypatch.setattr(fused, "MEASURED", {(128, 3): 1, (64, 1): 1})
    jax.clear_caches()
    assert kernels_of("cuda", "auto", chip) == 0


@pytest.mark.parametrize(
    "options",
    [
        {"device": xbm.Gaussian(read_noise=0.1)},
        {"adc": xbm.Adc(bits=8, noise_lsb=0.5)},
        {"encoding": "offset"},
        {"rows": 256},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_it_does_not_compute_is_read_plainly(options: Any) -> None:
    tiles, x, gain = layer((64, 64), (4, 64), None, **{"device": REAL} | options)
    chip = (tiles, x, gain, jax.random.key(0))
    assert kernels_of("cuda", "on", chip) == 0


def test_an_unknown_choice_is_refused() -> None:
    with (
        pytest.raises(SpecError, match=r"fused_reads = 'yes': one of 'auto', 'on', 'off'"),
        fused.fused_reads("yes"),  # type: ignore[arg-type]
    ):
        pass
