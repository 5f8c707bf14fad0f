"""Reads of one layer, each beside the plain product of the same shapes."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import xbm_jax as xbm
from benchmarks.programs import Program
from xbm_jax.crossbar import AdcRange, Conv, Tiles, plan, program, read
from xbm_jax.crossbar.primitives.products import PRECISION

__all__ = [
    "BITSERIAL",
    "Layer",
    "by_line",
    "conv_layer",
    "dense_layer",
    "depthwise_layer",
    "eight_masks",
    "masks_together",
    "noisy_read",
    "ordered",
    "reads",
    "spec",
    "wired",
    "with_gradients",
    "xla_product",
]

_CELL = xbm.Cell(bits=7, on_off=100)
_SAME = Conv(padding=((1, 1), (1, 1)))

BITSERIAL = xbm.CrossbarSpec(
    rows=128, dac_bits=1, cell=xbm.Cell(bits=2, on_off=100), adc=xbm.Adc(bits=6, range=(-96.0, 96.0))
)
"""Eight cycles of one input bit, four two-bit slices of a weight, and a converter that loses some of each sum."""


class Layer(NamedTuple):
    """A programmed layer, an input of it, column gains, and the plain operation on the same input."""

    tiles: Tiles
    x: jax.Array
    gain: jax.Array
    plain: Program


def dense_layer(spec: xbm.CrossbarSpec, batch: int = 64, rows: int = 1152, columns: int = 256) -> Layer:
    """A dense layer."""
    return _layer(spec, (rows, columns), (batch, rows), None)


def conv_layer(spec: xbm.CrossbarSpec, channels: int, pixels: int, batch: int = 32) -> Layer:
    """A 3x3 convolution onto as many channels as it reads."""
    return _layer(spec, (3, 3, channels, channels), (batch, pixels, pixels, channels), _SAME)


def depthwise_layer(spec: xbm.CrossbarSpec, channels: int, pixels: int, batch: int = 32) -> Layer:
    """A 3x3 convolution of every channel by itself."""
    conv = Conv(padding=((1, 1), (1, 1)), groups=channels)
    return _layer(spec, (3, 3, 1, channels), (batch, pixels, pixels, channels), conv)


def spec(rows: int, adc_bits: int | None = 8, **options: Any) -> xbm.CrossbarSpec:
    """Arrays of 8-bit weights on pairs of 7-bit cells."""
    return xbm.CrossbarSpec(rows=rows, cell=_CELL, adc=xbm.Adc(bits=adc_bits), **options)


def reads(layer: Layer, *, masked: bool = True) -> tuple[Program, Program]:
    """A read, with column gains or without, and the plain product."""
    return Program(jax.jit(read), layer.tiles, layer.x, layer.gain if masked else None), layer.plain


def noisy_read() -> tuple[Program, Program]:
    """A read whose cells fluctuate from read to read, ideal converters."""
    layer = conv_layer(spec(128, None, device=xbm.Gaussian(read_noise=0.01)), 64, 8)
    return Program(jax.jit(read), layer.tiles, layer.x, layer.gain, jax.random.key(0)), layer.plain


def wired() -> tuple[Program, Program]:
    """A read of an array with resistive wires, and of one with ideal wires."""
    with_wires = conv_layer(spec(64, 8, wires=xbm.Wires(1.0, 1.0)), 64, 8)
    return reads(with_wires)[0], reads(conv_layer(spec(64, 8), 64, 8))[0]


def ordered(*, dense: bool = False, gradient: bool = False) -> tuple[Program, Program]:
    """A read of channels in an order of their own, and of the same layer under "channel"; or both with gradients.

    Gradients are those of adaption, of inputs and column gains; 8-bit converters, and tiles in a loop.
    """
    channels = 1152 if dense else 256
    order = xbm.ChannelOrder(np.random.default_rng(0).permutation(channels))

    def layer(row_order: Any) -> Layer:
        if dense:
            return dense_layer(spec(128, row_order=row_order))
        return conv_layer(spec(64, row_order=row_order), channels, 7)

    own, plain = layer(order), layer("channel")
    answer = jax.jit(with_gradients if gradient else read)
    return Program(answer, own.tiles, own.x, own.gain), Program(answer, plain.tiles, plain.x, plain.gain)


def by_line(*, gradient: bool = False) -> tuple[Program, Program]:
    """A read under gates of lines, and under gains of columns; or both with gradients, as :func:`ordered` has them."""
    layer, answer = conv_layer(spec(128), 64, 8), jax.jit(with_gradients if gradient else read)
    gates = jnp.stack([layer.gain, jnp.roll(layer.gain, 1, axis=1)], axis=1)
    return Program(answer, layer.tiles, layer.x, gates), Program(answer, layer.tiles, layer.x, layer.gain)


def with_gradients(tiles: Tiles, x: jax.Array, gain: jax.Array) -> Any:
    """A read's square, and its gradients of inputs and gains."""
    return jax.value_and_grad(lambda x, gain: jnp.sum(read(tiles, x, gain) ** 2), (0, 1))(x, gain)


def masks_together(layer: Layer, tasks: int) -> Program:
    """So many tasks' masks on one input in one pass."""
    gains = jnp.stack([jnp.roll(layer.gain, i, axis=1) for i in range(tasks)])
    compiled = jax.jit(jax.vmap(partial(read, gain_at="columns"), in_axes=(None, None, 0)))
    return Program(compiled, layer.tiles, layer.x, gains)


def eight_masks() -> tuple[Program, Program]:
    """Eight tasks' masks on one input in one pass, and one task's."""
    layer = conv_layer(spec(128, 8), 64, 8)
    return masks_together(layer, 8), reads(layer)[0]


def _layer(spec: xbm.CrossbarSpec, kernel_shape: tuple[int, ...], x_shape: tuple[int, ...], conv: Conv | None) -> Layer:
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.normal(size=kernel_shape), jnp.float32)
    x = jnp.asarray(np.maximum(rng.normal(size=x_shape), 0.0), jnp.float32)
    planned = plan(kernel, spec, conv)
    tiles = program(kernel, planned, jax.random.key(0), input_scale=float(x.max()) / 255)
    if spec.adc.bits is not None and tiles.adc is None and not planned.fold:
        # Some range: what a converter costs does not depend on it.
        step = jnp.full((1, 1, 1, 1), 2.0**18 / 2**spec.adc.bits)
        tiles = tiles.replace(adc=AdcRange(step, jnp.full_like(step, -(2.0 ** (spec.adc.bits - 1))), 0.0 * step))
    gain = jnp.asarray(rng.integers(0, 2, (planned.row_tiles, planned.columns)), jnp.float32)
    product = jax.jit(partial(xla_product, conv=conv))
    return Layer(tiles, x, gain, Program(product, x, kernel))


def xla_product(x: jax.Array, kernel: jax.Array, conv: Conv | None) -> jax.Array:
    """XLA's own operation, whatever form the package gives it."""
    if conv is None:
        return jnp.matmul(x, kernel, precision=PRECISION)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        conv.strides,
        conv.padding,
        feature_group_count=conv.groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=PRECISION,
    )
