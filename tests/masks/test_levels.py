"""Masks whose off columns count a little: gains, their gradients, and what is stored."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import CrossbarSpec, Tiles, plan, program
from xbm_jax.errors import MethodError, SpecError
from xbm_jax.masks import Annealed, Binary, Column, Identity, Levels, Line, Masked, Weight, methods
from xbm_jax.storage.packing import pack, unpack

SPEC = CrossbarSpec(rows=8)
RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(20, 6)), jnp.float32)  # 3 tiles
TILES: Tiles = program(KERNEL, plan(KERNEL, SPEC), jax.random.key(0), input_scale=1 / 255)
MASK = Masked(Column(), Binary(0.0), Annealed(), 0.05)
RULE = Levels(MASK, low=0.2)
VALUES = {"mask": jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32), "low": jnp.asarray([0.3], jnp.float32)}


@pytest.mark.parametrize("rule", [RULE, Levels(Masked(Line(), Binary(0.0), Identity(), 0.05))])
def test_training_starts_from_the_backbone(rule: Levels) -> None:
    start = rule.init(TILES, jax.random.key(0))
    for progress in (jnp.float32(0.0), None):
        tiles, gain = rule.apply(TILES, start, progress)
        assert tiles is TILES
        assert gain is not None
        np.testing.assert_allclose(gain, 1.0, rtol=1e-6)


def test_gains_are_one_or_the_layers_level() -> None:
    gain = RULE.apply(TILES, VALUES)[1]
    assert gain is not None
    low = np.float32(np.float16(0.3))
    np.testing.assert_allclose(gain, np.where(np.asarray(VALUES["mask"]) > 0, 1.0, low), rtol=1e-6)


def test_the_level_gets_the_gradient_of_its_unrounded_value() -> None:
    """``da/dlow = 1 - b``, summed over what is off."""
    upstream = jnp.asarray(RNG.normal(size=(3, 6)), jnp.float32)

    def total(values: dict[str, jax.Array]) -> jax.Array:
        gain = RULE.apply(TILES, values)[1]
        assert gain is not None
        return jnp.sum(upstream * gain)

    found = jax.grad(total)(VALUES)["low"]
    np.testing.assert_allclose(found[0], np.sum(np.asarray(upstream)[np.asarray(VALUES["mask"]) <= 0]), rtol=1e-5)


def test_what_is_stored_gives_the_same_gains_in_one_bit_a_column_and_sixteen_a_layer() -> None:
    codes, kept = RULE.encode(TILES, VALUES), RULE.stored(TILES.plan)
    assert {name: (k.shape, k.bits, k.kind) for name, k in kept.items()} == {
        "mask": ((3, 6), 1, "mask"),
        "low": ((1,), 16, "mask"),
    }
    back = {}
    for name, stored in kept.items():
        packed = pack(np.asarray(codes[name]), stored.bits)
        back[name] = jnp.asarray(unpack(packed, stored.bits, codes[name].size).reshape(stored.shape))
    np.testing.assert_array_equal(RULE.apply(TILES, back)[1], RULE.apply(TILES, VALUES)[1])
    assert jax.tree.map(lambda a: a.dtype, RULE.encode(TILES, codes)) == {"mask": jnp.uint8, "low": jnp.uint16}


def test_the_method_keeps_two_levels_and_an_impossible_level_is_refused() -> None:
    assert methods.xbm_levels(low=0.25).rule == Levels(MASK, low=0.25)
    with pytest.raises(SpecError, match=r"Levels.low = nan"):
        methods.xbm_levels(low=float("nan"))
    with pytest.raises(MethodError, match=r"Levels.mask = 'Weight'"):
        Levels(Masked(Weight(), Binary(), Identity()))
