"""Whole networks: a mask training step beside the plain network's full one, in time, memory and compile time."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

import xbm_jax as xbm
from benchmarks.layers import spec
from benchmarks.programs import Program
from benchmarks.timing import Work, timed
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.data.decode import decode_all
from xbm_jax.models import MODELS, backbone, forward, initial_trained, named_network, source_trained
from xbm_jax.training import Pace, Recipe, init_state
from xbm_jax.training.step import train_step

__all__ = ["Step", "eight_steps", "mask_step", "plain_read", "plain_step", "program_seconds"]
__all__ += ["programming_times", "random_backbone", "read_compiled", "step_images", "whole_adaption"]

RESNET20 = "cifar-resnet20"


class Step(NamedTuple):
    """A compiled training step: a call of it, its peak memory, how long it took to compile, and what does so again."""

    run: Program
    peak_bytes: int
    compile_seconds: float
    again: Callable[[], float]

    def compile_times(self, rounds: int = 5) -> list[float]:
        """Seconds to trace, lower and compile, so many times."""
        return [self.compile_seconds, *(self.again() for _ in range(rounds - 1))]


def mask_step(
    adc_bits: int | None,
    batch: int = 32,
    pixels: int = 32,
    model: str = RESNET20,
    method: xbm.Method | None = None,
) -> Step:
    """A method's step, XBM's by default: masks, norms and head are trained; 64 rows, 1 % programming error.

    ``pixels``: of images; tokens of sentences.
    """
    images, labels = _batch(batch, pixels, model)
    chip, method = _chip(adc_bits, images, model), xbm.methods.xbm() if method is None else method
    state = _state(chip, method)
    # Without donation, so that the same state can be stepped again and again.
    compiled = jax.jit(train_step.__wrapped__, static_argnames=("method", "how"))
    how, pace = Recipe().how(method), _pace(method)
    given = (method.learned, how, chip, state, images, labels, pace, jax.random.key(2))
    return _compiled(compiled, *given, static=2)


def eight_steps(batch: int = 32, pixels: int = 32) -> tuple[Work, Work]:
    """Eight tasks' steps on ResNet-20 with ideal converters: in one vmapped call, and one after another."""
    images, labels = _batch(8 * batch, pixels)
    chip, method = _chip(None, images[:batch]), xbm.methods.xbm()
    states = [_state(chip, method, seed) for seed in range(8)]
    x, y = images.reshape(8, batch, *images.shape[1:]), labels.reshape(8, batch)
    how, pace, key = Recipe().how(method), _pace(method), jax.random.key(2)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        return train_step.__wrapped__(method.learned, how, chip, state, images, labels, pace, key)

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    together = jax.jit(jax.vmap(step)).lower(stacked, x, y).compile()
    single = jax.jit(step).lower(states[0], x[0], y[0]).compile()
    return lambda: together(stacked, x, y), lambda: [single(*given) for given in zip(states, x, y, strict=True)]


def whole_adaption(steps: int = 50, batch: int = 32, pixels: int = 32) -> tuple[Work, Work]:
    """:func:`xbm_jax.adapt` for an epoch, with input, validation and a batch of test images, and as many bare steps."""
    recipe, rng = Recipe(epochs=1, batch_size=batch), np.random.default_rng(0)
    count = math.ceil(steps * batch / (1 - recipe.validation_fraction))
    images, labels = rng.integers(0, 256, (count, pixels, pixels, 3), np.uint8), np.arange(count) % 2
    data = xbm.Dataset("noise", images, labels, images[:batch], labels[:batch], ("even", "odd"))
    chip, step = _chip(8, jnp.asarray(images[:batch])), mask_step(8, batch, pixels).run

    def adapted() -> Any:
        return xbm.adapt(chip, data, method=xbm.methods.xbm(), key=jax.random.key(1), config=recipe).trained

    return adapted, lambda: [step() for _ in range(steps)]


def step_images(batch: int = 32, pixels: int = 32) -> Work:
    """A step's images from JPEG files a quarter larger: decoded, a random patch of each cut, resized and mirrored."""
    source, augment = pixels + pixels // 4, xbm.data.Augment(size=pixels)
    noise = np.random.default_rng(0).integers(0, 256, (batch, source, source, 3), np.uint8)
    files = []
    for image in noise:
        Image.fromarray(image).save(file := io.BytesIO(), "JPEG")
        files.append(file.getvalue())

    def make() -> np.ndarray:
        return augment.train(np.stack(decode_all(files, [""] * batch, None, "", "raise")[1]), 0)

    return make


def plain_step(batch: int = 32, pixels: int = 32, model: str = RESNET20) -> Step:
    """The plain network's full step: all kernels, norms and head by Adam."""
    images, labels = _batch(batch, pixels, model)
    chip, method = _chip(None, images, model), xbm.methods.norm_only()
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
    return programming_times(wires, rounds=1)[0]


def programming_times(wires: bool, rounds: int = 5) -> list[float]:
    """:func:`program_seconds` of so many chips."""
    backbone = xbm.load_backbone()
    chosen = spec(64, 8, wires=xbm.Wires(1.0, 1.0) if wires else xbm.Wires())

    def programmed(seed: int) -> Any:
        return xbm.program(backbone, chosen, jax.random.key(seed)).tiles

    jax.block_until_ready(programmed(0))
    return [timed(partial(programmed, 1 + i)) for i in range(rounds)]


def _plain_read(kernels: dict[str, jax.Array]) -> Callable[..., jax.Array]:
    return lambda path, tiles, x, *_: product(x, kernels[path], tiles.plan.conv)


def _batch(batch: int, size: int, model: str = RESNET20) -> tuple[Any, jax.Array]:
    """Images of ``size`` pixels a side, or sentences of as many tokens, and labels."""
    rng = np.random.default_rng(0)
    labels = jnp.asarray(rng.integers(0, 10, batch))
    if MODELS[model].inputs is None:
        return jnp.asarray(rng.integers(0, 256, (batch, size, size, 3)), jnp.uint8), labels
    return {
        "ids": jnp.asarray(rng.integers(0, 30_000, (batch, size)), jnp.int32),
        "mask": jnp.ones((batch, size), bool),
    }, labels


def _chip(adc_bits: int | None, images: Any, model: str = RESNET20) -> xbm.Chip:
    chosen = spec(64, adc_bits, device=xbm.Gaussian(0.01))
    return xbm.calibrate(xbm.program(_backbone(model), chosen, jax.random.key(0)), images)


def _backbone(model: str) -> xbm.Backbone:
    """A backbone with its weights, or with random ones where none ship: speed does not depend on them."""
    return xbm.load_backbone(model) if model == RESNET20 else random_backbone(model)


def random_backbone(model: str) -> xbm.Backbone:
    """A backbone with random weights."""
    network, rng = named_network(model, 10), np.random.default_rng(0)
    kinds = {"scale": np.ones, "var": np.ones, "bias": np.zeros, "mean": np.zeros}
    arrays = {}
    for path, shape in network.shapes.items():
        kind = path.rsplit("/", 1)[-1]
        spread = (2 / np.prod(shape[:-1])) ** 0.5
        drawn = kinds[kind](shape) if kind in kinds else rng.normal(size=shape) * spread
        arrays[path] = drawn.astype(np.float32)
    return backbone(network, arrays)


def _state(chip: xbm.Chip, method: xbm.Method, seed: int = 1) -> Any:
    trained = initial_trained(chip, method, 10, jax.random.key(seed))
    return init_state(Recipe().how(method), trained, jax.tree.map(jnp.array, chip.stats))


def _pace(method: xbm.Method) -> Pace:
    """The first step's numbers."""
    rates = jax.tree.map(np.float32, Recipe().rates(method, steps=528))
    return Pace(rates, dict.fromkeys(rates, np.float32(1.0)), np.float32(1.0), np.int32(10))


def _compiled(function: Any, *args: Any, static: int = 0) -> Step:
    """Compile for ``args``, of which the first ``static`` are not arrays."""

    def compiled() -> tuple[Any, float]:
        jax.clear_caches()  # the same program may have been compiled for another row
        start = time.perf_counter()
        made = function.lower(*args).compile()
        return made, time.perf_counter() - start

    first, seconds = compiled()
    memory = first.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    run = Program(function, *args, static=static, compiled=first)
    return Step(run, peak, seconds, lambda: compiled()[1])
