"""Examples with gains of their own under ``vmap``: one batch of products, and what each example alone answers."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cost import slow_but
from crossbar.jaxprs import products
from xbm_jax.crossbar import Adc, Conv, CrossbarSpec, Gaussian, Tiles, plan, program, read
from xbm_jax.crossbar.reading import loops

# Small compilations: LLVM's optimiser would take most of the time.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CONV = Conv(padding="SAME")
ROWS = CrossbarSpec(rows=8, adc=Adc(6, "max", "tile"))
IDEAL = ROWS.replace(adc=Adc(None))
KINDS = {
    "converted": (ROWS, CONV, False),
    "dense": (ROWS, None, False),
    "ideal": (IDEAL, CONV, False),
    "lines before the converter": (ROWS, CONV, True),
    "lines behind converters": (ROWS.replace(subtract="digital"), CONV, True),
    "dense lines": (ROWS, None, True),
    "strided": (ROWS, Conv(strides=(2, 1), padding=((1, 0), (1, 1))), False),
}
EXAMPLES = 3


def built(spec: CrossbarSpec, conv: Conv | None, key: int = 0) -> Tiles:
    """A kernel of 6 inputs and 4 columns."""
    shape = (6, 4) if conv is None else (3, 3, 6, 4)
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    planned = plan(kernel, spec, conv, signed_inputs=True)
    return program(jnp.asarray(kernel), planned, jax.random.key(key), input_scale=0.02)


def given(tiles: Tiles, lines: bool, inner: int = 1) -> tuple[jax.Array, jax.Array]:
    """Inputs [examples, inner, ...] and gains of each example."""
    rng, shape = np.random.default_rng(1), (6,) if tiles.plan.conv is None else (4, 4, 6)
    x = rng.normal(size=(EXAMPLES, inner, *shape))
    gain = rng.integers(0, 2, (EXAMPLES, tiles.plan.row_tiles, *([2] if lines else []), 4))
    return jnp.asarray(x, jnp.float32), jnp.asarray(gain, jnp.float32)


CASES = [(kind, looped) for kind in KINDS for looped in (False, True)]


@pytest.mark.parametrize(
    ("kind", "looped"), slow_but([("converted", False), ("lines before the converter", True)], CASES)
)
def test_each_example_answers_as_alone(kind: str, looped: bool, monkeypatch: Any) -> None:
    spec, conv, lines = KINDS[kind]
    monkeypatch.setattr(loops, "_TALL", 2 if looped else 100)
    tiles = built(spec, conv)
    x, gain = given(tiles, lines, inner=2)
    answer = partial(read, tiles, gain_at="columns")
    together, alone = quick_jit(jax.vmap(answer))(x, gain), quick_jit(answer)
    wanted = np.stack([alone(one, own) for one, own in zip(x, gain, strict=True)])
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(together, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_products_are_those_of_one_batch() -> None:
    tiles = built(ROWS, CONV)
    x, gain = given(tiles, lines=False)
    answer = partial(read, tiles, gain_at="columns")

    def shapes(function: Any, *args: jax.Array) -> list[tuple[int, ...]]:
        return [e.outvars[0].aval.shape for e in products(jax.make_jaxpr(function)(*args).jaxpr)]

    alone = shapes(answer, x[:, 0], gain[0])
    assert len(alone) >= tiles.plan.row_tiles
    assert shapes(jax.vmap(answer), x, gain) == alone


@pytest.mark.slow
def test_a_pair_of_axes_is_read_like_one() -> None:
    """Seeds of tasks, say."""
    tiles = built(ROWS, CONV)
    x, gain = given(tiles, lines=False)
    answer = partial(read, tiles, gain_at="columns")
    twice = jax.vmap(jax.vmap(answer))(jnp.stack([x, -x]), jnp.stack([gain, 1 - gain]))
    wanted = [jax.vmap(answer)(x, gain), jax.vmap(answer)(-x, 1 - gain)]
    np.testing.assert_allclose(twice, np.stack(wanted), rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_chips_and_draws_that_differ_are_batched_too() -> None:
    tiles = [built(ROWS.replace(device=Gaussian(0.05, read_noise=0.02)), CONV, key) for key in range(EXAMPLES)]
    x, gain = given(tiles[0], lines=False)
    keys = jax.random.split(jax.random.key(3), EXAMPLES)
    answer = partial(read, gain_at="columns")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tiles)
    together = jax.vmap(answer)(stacked, x, gain, keys)
    wanted = np.stack([answer(*one) for one in zip(tiles, x, gain, keys, strict=True)])
    np.testing.assert_allclose(together, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.slow
def test_gradients_are_those_of_each_alone() -> None:
    tiles = built(ROWS, CONV)
    x, gain = given(tiles, lines=False)
    of_gain = jax.grad(lambda a, one: jnp.sum(jnp.sin(read(tiles, one, a))))
    wanted = np.stack([of_gain(own, one) for one, own in zip(x, gain, strict=True)])
    np.testing.assert_allclose(jax.vmap(of_gain)(gain, x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
