"""Whole networks: a mask training step beside the plain network's full one, in time, memory and compile time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import xbm_jax as xbm
from benchmarks.layers import spec
from benchmarks.timing import Work
from xbm_jax.crossbar.products import product
from xbm_jax.models import forward, initial_trained, source_trained
from xbm_jax.training import init_state
from xbm_jax.training.step import train_step

__all__ = ["Step", "mask_step", "plain_read", "plain_step", "program_seconds", "read_compiled"]


class Step(NamedTuple):
    """A compiled training step: a call of it, its peak memory, and how long it took to compile."""

    run: Work
    peak_bytes: int
    compile_seconds: float


def mask_step(adc_bits: int | None, batch: int = 32, pixels: int = 32) -> Step:
    """XBM's step on ResNet-20: column masks, norms and head are trained; 64 rows, 1 % programming error."""
    images, labels = _batch(batch, pixels)
    chip, method = _chip(adc_bits, images), xbm.methods.xbm()
    trained = initial_trained(chip, method, 10, jax.random.key(1))
    state = init_state(method, trained, jax.tree.map(jnp.array, chip.stats))
    # Without donation, so that the same state can be stepped again and again.
    compiled = jax.jit(train_step.__wrapped__, static_argnames="method")
    return _compiled(compiled, method, chip, state, images, labels, np.float32(1.0), jax.random.key(2), static=1)


def plain_step(batch: int = 32, pixels: int = 32) -> Step:
    """The plain network's full step: all kernels, norms and head by Adam, XLA's own convolutions."""
    images, labels = _batch(batch, pixels)
    chip, method = _chip(None, images), xbm.methods.norm_only()
    kernels = {path: xbm.crossbar.nominal_weights(tiles) for path, tiles in chip.tiles.items()}
    trained = {"kernels": kernels, "norms": chip.norms, "head": chip.head}
    tx = optax.adam(1e-3)

    def loss(trained: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
        own = {"masks": {}, "norms": trained["norms"], "head": trained["head"]}
        read = _plain_read(trained["kernels"])
        logits, stats = forward(chip, method, own, chip.stats, images, train=True, layer_read=read)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels)), stats

    def step(trained: Any, opt: Any, images: jax.Array, labels: jax.Array) -> tuple:
        (value, stats), grads = jax.value_and_grad(loss, has_aux=True)(trained, images, labels)
        updates, opt = tx.update(grads, opt, trained)
        return optax.apply_updates(trained, updates), opt, stats, value

    return _compiled(jax.jit(step), trained, tx.init(trained), images, labels)


def read_compiled(adc_bits: int | None = 8, batch: int = 32, pixels: int = 32) -> Step:
    """ResNet-20's forward pass on the chip, masked."""
    images, _ = _batch(batch, pixels)
    chip, method = _chip(adc_bits, images), xbm.methods.xbm()
    trained = initial_trained(chip, method, 10, jax.random.key(1))
    run = jax.jit(lambda chip, trained, images: forward(chip, method, trained, chip.stats, images)[0])
    return _compiled(run, chip, trained, images)


def plain_read(batch: int = 32, pixels: int = 32) -> Step:
    """ResNet-20's forward pass by XLA's own convolutions."""
    images, _ = _batch(batch, pixels)
    chip, method = _chip(None, images), xbm.Method("source", norms="frozen")
    kernels = {path: xbm.crossbar.nominal_weights(tiles) for path, tiles in chip.tiles.items()}

    def run(kernels: Any, images: jax.Array) -> jax.Array:
        return forward(chip, method, source_trained(chip), chip.stats, images, layer_read=_plain_read(kernels))[0]

    return _compiled(jax.jit(run), kernels, images)


def program_seconds(wires: bool) -> float:
    """Programming ResNet-20 onto 64 x 64 arrays, once compiled."""
    backbone = xbm.load_backbone()
    chosen = spec(64, 8, wires=xbm.Wires(1.0, 1.0) if wires else xbm.Wires())
    jax.block_until_ready(xbm.program(backbone, chosen, jax.random.key(0)).tiles)
    start = time.perf_counter()
    jax.block_until_ready(xbm.program(backbone, chosen, jax.random.key(1)).tiles)
    return time.perf_counter() - start


def _plain_read(kernels: dict[str, jax.Array]) -> Callable[..., jax.Array]:
    return lambda path, tiles, x, *_: product(x, kernels[path], tiles.plan.conv)


def _batch(batch: int, pixels: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (batch, pixels, pixels, 3)), jnp.uint8)
    return images, jnp.asarray(rng.integers(0, 10, batch))


def _chip(adc_bits: int | None, images: jax.Array) -> xbm.Chip:
    chosen = spec(64, adc_bits, device=xbm.Gaussian(0.01))
    return xbm.calibrate(xbm.program(xbm.load_backbone(), chosen, jax.random.key(0)), images)


def _compiled(function: Any, *args: Any, static: int = 0) -> Step:
    """Compile for ``args``, of which the first ``static`` are not arrays."""
    jax.clear_caches()  # the same program may have been compiled for another row
    jax.clear_caches()  # the same program may have been compiled for another row
    start = time.perf_counter()
    compiled = function.lower(*args).compile()
    seconds = time.perf_counter() - start
    memory, arrays = compiled.memory_analysis(), args[static:]
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Step(lambda: compiled(*arrays), peak, seconds)
