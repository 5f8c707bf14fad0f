"""XMA2: which columns share an array, what is rewritten and what is scaled, and which arrays are chosen."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.crossbar import Adc, Conv, CrossbarSpec, Gaussian, Tiles, nominal_weights, plan, program, read
from xbm_jax.masks import ArrayChoice, most_wanted

SPEC = CrossbarSpec(rows=16, cols=8, adc=Adc(bits=None), device=Gaussian(0.02))  # 4 columns an array
KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 5, 10)), jnp.float32)  # 3 tiles of 3 arrays
PLAN = plan(KERNEL, SPEC, Conv())
TILES = program(KERNEL, PLAN, jax.random.key(0), input_scale=0.1)
RULE = ArrayChoice(gain_bits=4)
X = jnp.asarray(np.random.default_rng(1).uniform(0, 25, (2, 6, 6, 5)), jnp.float32)


@pytest.mark.parametrize(
    ("shape", "conv", "wanted"),
    [
        ((20, 10), None, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]),
        ((3, 3, 2, 10), Conv(groups=2), [0, 0, 0, 0, 1, 2, 2, 2, 2, 3]),
        ((3, 3, 1, 3), Conv(groups=3), [0, 1, 2]),
    ],
)
def test_neighbouring_columns_share_an_array(shape: tuple, conv: Conv | None, wanted: list[int]) -> None:
    np.testing.assert_array_equal(plan(np.ones(shape), SPEC, conv).array_of_column, wanted)


def some_chosen() -> dict[str, jax.Array]:
    """Two of nine arrays chosen, weights and gains moved everywhere."""
    rng = np.random.default_rng(2)
    start = RULE.init(TILES, jax.random.key(0))
    return {
        "arrays": start["arrays"].at[1, 0].set(1.0).at[2, 2].set(0.5),
        "weights": start["weights"] + jnp.asarray(rng.normal(size=KERNEL.shape), jnp.float32),
        "gains": jnp.asarray((rng.uniform(-0.2, 2.2, (3, 10)) - 1) / 30, jnp.float32),
    }


CHOSEN = np.zeros((3, 10), bool)
CHOSEN[1, 0:4] = CHOSEN[2, 8:10] = True


def test_training_starts_from_the_backbone() -> None:
    tiles, gain = RULE.apply(TILES, RULE.init(TILES, jax.random.key(0)))
    np.testing.assert_array_equal(gain, 1)
    np.testing.assert_array_equal(tiles.conductance, TILES.conductance)


def test_chosen_arrays_hold_new_weights_and_the_others_are_scaled() -> None:
    values = some_chosen()
    tiles, gain = RULE.apply(TILES, values)
    scale = np.clip(np.round((1 + 30 * np.asarray(values["gains"])) * 8), 0, 15) / 8
    np.testing.assert_array_equal(gain, np.where(CHOSEN, 1, scale))
    on_kernel = CHOSEN[PLAN.tile_index]
    np.testing.assert_array_equal(tiles.levels[:, :, ~on_kernel], TILES.levels[:, :, ~on_kernel])
    np.testing.assert_array_equal(tiles.conductance[:, :, ~on_kernel], TILES.conductance[:, :, ~on_kernel])
    s_w = np.asarray(TILES.weight_scale)
    wanted = np.clip(np.round(np.asarray(values["weights"]) / s_w), -127, 127) * s_w
    np.testing.assert_allclose(nominal_weights(tiles)[on_kernel], wanted[on_kernel], rtol=1e-6)


def test_codes_give_the_bits_of_their_values() -> None:
    values = some_chosen()
    codes = RULE.encode(TILES, values)
    kept = RULE.stored(PLAN)
    assert {name: (c.shape, c.dtype) for name, c in codes.items()} == {k: (v.shape, jnp.uint8) for k, v in kept.items()}
    assert all(int(codes[name].max()) < 2 ** kept[name].bits for name in codes)

    @jax.jit
    def answer(tiles: Tiles, values: Any) -> jax.Array:
        task_tiles, gain = RULE.apply(tiles, values)
        return read(task_tiles, X, gain)

    np.testing.assert_array_equal(answer(TILES, codes), answer(TILES, values))
    jax.tree.map(np.testing.assert_array_equal, RULE.encode(TILES, codes), codes)


def test_only_what_matters_is_counted() -> None:
    needed = RULE.needed(PLAN, some_chosen())
    rows = [16, 16, 45 - 32]
    assert needed == {"arrays": 9, "weights": 4 * rows[1] + 2 * rows[2], "gains": 30 - 6}


def test_a_chosen_array_is_rewritten_with_all_its_row_tiles() -> None:
    """45 rows: 6 tiles of 8 rows on 2 arrays of 32 beside each other thrice; the second one below is chosen."""
    tall = plan(KERNEL, SPEC.replace(rows=32, active_rows=8), Conv())
    tiles = program(KERNEL, tall, jax.random.key(0), input_scale=0.1)
    values = RULE.init(tiles, jax.random.key(0))
    assert values["arrays"].shape == (2, 3) and values["gains"].shape == (6, 10)
    values = {**values, "arrays": values["arrays"].at[1, 1].set(1.0), "weights": values["weights"] + 1.0}
    chosen = np.zeros((6, 10), bool)
    chosen[4:6, 4:8] = True
    np.testing.assert_array_equal(RULE.rewritten(tall, values), chosen)
    task_tiles, _ = RULE.apply(tiles, values)
    changed = np.any(np.asarray(task_tiles.levels != tiles.levels), (0, 1))
    assert changed.any() and not changed[~chosen[tall.tile_index]].any()
    assert RULE.needed(tall, values) == {"arrays": 6, "weights": 4 * (45 - 32), "gains": 60 - 8}
    gradient = np.zeros(KERNEL.shape)
    gradient[tall.tile_index == 5, 9] = 1.0
    np.testing.assert_array_equal(most_wanted({"a": tall}, {"a": gradient}, 0.2)["a"], [[-1] * 3, [-1, -1, 1]])


def test_gradients_reach_what_counts_alone() -> None:
    def loss(values: Any) -> jax.Array:
        tiles, gain = RULE.apply(TILES, values)
        return jnp.sum(jnp.sin(read(tiles, X, gain)))

    grads = jax.grad(loss)(some_chosen())
    np.testing.assert_array_equal(grads["arrays"], 0)
    on_kernel = CHOSEN[PLAN.tile_index]
    np.testing.assert_array_equal(np.asarray(grads["weights"] != 0), on_kernel)
    np.testing.assert_array_equal(np.asarray(grads["gains"] != 0), ~CHOSEN)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_arrays_that_promise_most_are_chosen(seed: int, share: float) -> None:
    """Against a plain loop over two layers; never more than the share."""
    rng = np.random.default_rng(seed)
    plans = {"a": PLAN, "b": plan(np.ones((33, 6)), SPEC)}
    gradients = {path: rng.normal(size=p.kernel_shape) for path, p in plans.items()}
    worth = {}
    for path, p in plans.items():
        for index in np.ndindex(*p.kernel_shape):
            array = path, int(p.tile_index[index[:-1]]), index[-1] // 4
            worth[array] = worth.get(array, 0.0) + abs(gradients[path][index])
    best = sorted(worth, key=lambda array: -worth[array])[: int(share * len(worth))]
    chosen = most_wanted(plans, gradients, share)
    found = {(path, int(t), int(a)) for path, c in chosen.items() for t, a in np.argwhere(c > 0)}
    assert found == set(best)
