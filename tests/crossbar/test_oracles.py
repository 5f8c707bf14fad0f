"""Numbers made by other programs, and counts known from architectures alone."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import Adc, Conv, CrossbarSpec, Plan, plan, program, read

Oracle = Callable[[str], dict[str, np.ndarray]]
FULL_CODES = 127 * 255


@pytest.mark.parametrize(
    ("name", "adc", "dac_bits", "share"),
    [
        ("y_balanced_noadc", Adc(bits=None), None, 1.0),
        ("y_balanced_adc8", Adc(8, (-8 * FULL_CODES, 8 * FULL_CODES)), None, 1.0),
        ("y_balanced_serial_adc8", Adc(8, (-16 * 127, 16 * 127)), 1, 0.997),
    ],
)
def test_crosssim_products(
    oracle: Oracle, name: str, adc: Adc, dac_bits: int | None, share: float, record_property: Callable[[str, str], None]
) -> None:
    numbers = oracle("crossbar_products")
    kernel, expected = numbers["w"].T.astype(np.float32), numbers[name]
    spec = CrossbarSpec(rows=128, adc=adc, dac_bits=dac_bits)
    scales = {"weight_scale": jnp.ones(kernel.shape[1]), "input_scale": 1.0}
    tiles = program(jnp.asarray(kernel), plan(kernel, spec), jax.random.key(0), **scales)
    y = np.asarray(read(tiles, jnp.asarray(numbers["x"], jnp.float32)))
    agrees = np.abs(y - expected) <= 1e-4 * np.abs(expected).max()
    record_property("found", f"{agrees.sum()} of {agrees.size}")
    assert agrees.mean() >= share


def test_crosssim_products_are_the_exact_product_where_the_converter_is_ideal(oracle: Oracle) -> None:
    numbers = oracle("crossbar_products")
    tiles = program(
        jnp.asarray(numbers["w"].T, jnp.float32),
        plan(numbers["w"].T, CrossbarSpec(rows=16, adc=Adc(bits=None))),
        jax.random.key(0),
        weight_scale=jnp.ones(24),
        input_scale=1.0,
    )
    y = read(tiles, jnp.asarray(numbers["x"], jnp.float32), jnp.ones((6, 24)), gain_at="columns")
    np.testing.assert_array_equal(y, numbers["x"] @ numbers["w"].T)


def resnet50_kernels() -> list[tuple[int, int, int, int]]:
    """HWIO shapes of ResNet-50's convolutions: a stem, then 3, 4, 6 and 3 bottlenecks, one projection per stage."""
    shapes, channels = [(7, 7, 3, 64)], 64
    for blocks, width in zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True):
        for block in range(blocks):
            if block == 0:
                shapes.append((1, 1, channels, 4 * width))
            shapes += [(1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            channels = 4 * width
    return shapes


def resnet50_plans(rows: int) -> list[Plan]:
    spec = CrossbarSpec(rows=rows)
    return [plan(np.broadcast_to(np.float32(0.0), shape), spec, Conv()) for shape in resnet50_kernels()]


def test_resnet50_shapes_are_complete() -> None:
    assert len(resnet50_kernels()) == 53
    assert sum(int(np.prod(shape)) for shape in resnet50_kernels()) == 23_454_912


@pytest.mark.parametrize(("rows", "bits"), [(64, 366_528), (128, 183_936)])
def test_resnet50_mask_memory(rows: int, bits: int) -> None:
    assert sum(p.row_tiles * p.columns for p in resnet50_plans(rows)) == bits
