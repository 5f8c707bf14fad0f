"""What a rule makes of a programmed layer: gains, rewritten cells, stored codes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xbm_jax.crossbar import (
    Adc,
    Cell,
    Conv,
    CrossbarSpec,
    Gaussian,
    Tiles,
    cells_written,
    nominal_weights,
    plan,
    program,
    read,
    reprogram,
)
from xbm_jax.masks import (
    Alphabet,
    Binary,
    Column,
    Filter,
    Granularity,
    Identity,
    Kernel,
    Masked,
    Rewritten,
    Rule,
    Shift,
    Sigmoid,
    Soft,
    Ternary,
    Weight,
)

SPEC = CrossbarSpec(rows=16, weight_bits=6, cell=Cell(3), adc=Adc(bits=None))
NOISY = SPEC.replace(device=Gaussian(0.05))
CONV = Conv((2, 2), ((1, 1), (1, 1)))
RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(3, 3, 5, 4)), jnp.float32)  # 45 rows: 3 tiles
X = jnp.asarray(RNG.uniform(0, 25, (2, 7, 7, 5)), jnp.float32)
UP = jnp.asarray(RNG.normal(size=(2, 4, 4, 4)), jnp.float32)  # a gradient of what is read


PLAN = plan(KERNEL, SPEC, CONV)


@partial(jax.jit, static_argnames="rule")
def apply(rule: Rule, tiles: Tiles, values: jax.Array) -> tuple[Tiles, jax.Array | None]:
    """One compilation for all tests of a rule."""
    return rule.apply(tiles, values)


def tiles_of(spec: CrossbarSpec = SPEC) -> Tiles:
    return program(KERNEL, plan(KERNEL, spec, CONV), jax.random.key(2), input_scale=0.1)


def logits_of(granularity: Granularity, seed: int = 3) -> jax.Array:
    draws = np.random.default_rng(seed).normal(size=granularity.shape(PLAN))
    return jnp.asarray(5e-3 + 0.01 * draws, jnp.float32)


def assert_same_tiles(one: Tiles, other: Tiles) -> None:
    """Equal levels, cells that kept theirs bit for bit; what is computed anew, up to how XLA fuses multiply and add."""
    for name in ("levels", "weight_scale"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_allclose(one.conductance, other.conductance, rtol=2.0**-22)
    np.testing.assert_allclose(one.effective, other.effective, rtol=0, atol=31 * 2.0**-23)


GRANULARITIES = [Column(), Filter(), Kernel(), Weight()]


@pytest.mark.parametrize(
    ("granularity", "alphabet", "estimator"),
    [
        (Column(), Binary(), Identity()),
        (Column(), Binary(), Sigmoid()),
        (Column(), Shift(threshold=3e-3, width=4, top=1), Identity()),
        (Filter(), Binary(), Identity()),
        (Kernel(), Binary(), Sigmoid()),
        (Kernel(), Soft(), Sigmoid()),
        (Weight(), Binary(), Identity()),
        (Weight(), Ternary(), Identity()),
    ],
    ids=lambda v: type(v).__name__,
)
def test_codes_give_the_bits_of_their_logits(granularity: Granularity, alphabet: Alphabet, estimator: Any) -> None:
    """One compiled forward pass serves training and stored tasks: same cells, same gains, same answers."""
    rule, tiles, logits = Masked(granularity, alphabet, estimator), tiles_of(NOISY), logits_of(granularity)
    codes = rule.encode(tiles, logits)
    assert codes.dtype == jnp.uint8 and codes.shape == rule.stored(tiles.plan).shape
    np.testing.assert_array_equal(rule.encode(tiles, codes), codes)

    @jax.jit
    def answer(tiles: Tiles, values: jax.Array) -> tuple:
        task_tiles, gain = rule.apply(tiles, values)
        return task_tiles, gain, read(task_tiles, X, gain)

    live, stored = answer(tiles, logits), answer(tiles, codes)
    assert (live[1] is None) is not granularity.on_columns
    jax.tree.map(np.testing.assert_array_equal, live, stored)


@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda g: type(g).__name__)
def test_a_mask_of_ones_changes_nothing(granularity: Granularity) -> None:
    rule, tiles = Masked(granularity, Binary(), Identity()), tiles_of(NOISY)
    start = rule.init(tiles, jax.random.key(0))
    np.testing.assert_array_equal(start, np.full(granularity.shape(tiles.plan), 1e-2, np.float32))
    after, gain = apply(rule, tiles, start)
    assert_same_tiles(after, tiles)
    np.testing.assert_array_equal(after.conductance, tiles.conductance)
    assert int(cells_written(tiles, after)) == 0
    assert rule.rewrites_cells is not granularity.on_columns and rule.stored(tiles.plan).kind == "mask"
    assert (gain is None) is rule.rewrites_cells
    assert gain is None or bool((gain == 1).all())


@pytest.mark.parametrize("granularity", [Kernel(), Weight()], ids=lambda g: type(g).__name__)
def test_weight_masks_rewrite_the_cells_of_masked_nominal_weights(granularity: Granularity) -> None:
    rule, tiles, logits = Masked(granularity, Binary(), Identity()), tiles_of(NOISY), logits_of(granularity)
    mask = np.broadcast_to(np.asarray(logits) > np.float32(5e-3), KERNEL.shape)
    assert 0.2 < mask.mean() < 0.8
    after, gain = apply(rule, tiles, logits)
    assert gain is None
    assert_same_tiles(after, reprogram(tiles, nominal_weights(tiles) * mask))
    np.testing.assert_array_equal(after.levels, np.where(mask, tiles.levels, 0))
    np.testing.assert_array_equal(after.conductance[:, :, mask], tiles.conductance[:, :, mask])
    by_hand = int((np.asarray(tiles.levels)[:, :, ~mask] > 0).sum())  # cells at level 0 already are not written
    assert 0 < by_hand < 4 * (~mask).sum()
    assert int(cells_written(tiles, after)) == by_hand


@pytest.mark.parametrize("spec", [SPEC, SPEC.replace(device=Gaussian(0.05))], ids=["exact", "programming error"])
def test_masked_columns_equal_rewritten_weights_on_exact_cells(spec: CrossbarSpec) -> None:
    """A column gain and zeroed weights are one on ideal cells; with programming error a rewritten cell still leaks."""
    tiles = tiles_of(spec)
    logits = logits_of(Column())
    _, gain = Masked(Column(), Binary(), Identity()).apply(tiles, logits)
    assert gain is not None and 0 < float(gain.mean()) < 1
    zeroed = reprogram(tiles, nominal_weights(tiles) * gain[tiles.plan.tile_index])
    by_gain, by_cells = read(tiles, X, gain), read(zeroed, X)
    scale = float(jnp.abs(by_cells).max())
    apart = float(jnp.abs(by_gain - by_cells).max()) / scale
    assert apart < 1e-6 if spec is SPEC else apart > 1e-3
    by_gain_apart = read(tiles, X, gain, gain_at="columns")
    np.testing.assert_allclose(by_gain_apart, by_gain, atol=1e-5 * scale)


# ---------------------------------------------------------------------------------------------------------------------
# Fine-tuning


def test_finetune_starts_from_what_is_programmed() -> None:
    rule, tiles = Rewritten(), tiles_of(NOISY)
    start = rule.init(tiles, jax.random.key(0))
    np.testing.assert_array_equal(start, nominal_weights(tiles))
    after, gain = apply(rule, tiles, start)
    assert gain is None
    assert_same_tiles(after, tiles)
    np.testing.assert_array_equal(after.conductance, tiles.conductance)
    assert rule.rewrites_cells and rule.stored(tiles.plan).kind == "weights"


@pytest.mark.parametrize("bits", [2, 8])
def test_finetune_codes_round_trip(bits: int) -> None:
    """Codes are ``w_int + 2**(bits - 1)``; what is beyond the largest level stays on it."""
    spec = SPEC.replace(weight_bits=bits, cell=Cell(1))
    rule, tiles = Rewritten(), tiles_of(spec)
    weights = nominal_weights(tiles) + 0.7 * RNG.normal(size=KERNEL.shape).astype(np.float32)
    codes = rule.encode(tiles, weights)
    top = 2 ** (bits - 1) - 1
    w_int = np.clip(np.round(np.asarray(weights) / np.asarray(tiles.weight_scale)), -top, top)
    np.testing.assert_array_equal(codes.astype(int) - 2 ** (bits - 1), w_int)
    assert codes.dtype == jnp.uint8 and codes.shape == rule.stored(tiles.plan).shape
    assert rule.stored(tiles.plan).bits == bits
    assert int(codes.min()) == 1 and int(codes.max()) == 2**bits - 1  # both ends are met
    np.testing.assert_array_equal(rule.encode(tiles, codes), codes)
    live, stored = apply(rule, tiles, weights)[0], apply(rule, tiles, codes)[0]
    assert_same_tiles(live, stored)
    np.testing.assert_allclose(nominal_weights(stored), w_int * np.asarray(tiles.weight_scale), rtol=1e-6)


def test_finetune_passes_the_gradient_straight_through() -> None:
    """As if the float weights were read: ``dL/dW`` of the plain convolution with the rounded weights."""
    rule, tiles = Rewritten(), tiles_of()
    weights = KERNEL + 0.02
    ours = jax.grad(lambda w: jnp.sum(UP * read(rule.apply(tiles, w)[0], X)))(weights)
    codes = jnp.clip(jnp.round(X / 0.1), 0, 255) * 0.1

    def plain(w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            codes, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    theirs = jax.grad(lambda w: jnp.sum(UP * plain(w)))(weights)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_piggyback_gradient_is_that_of_the_product() -> None:
    """Identity estimator: ``dL/dm = dL/dW_masked * W_nominal``, entry by entry."""
    tiles, logits = tiles_of(), logits_of(Weight())
    rule = Masked(Weight(), Binary(), Identity())
    ours = jax.grad(lambda m: jnp.sum(UP * read(rule.apply(tiles, m)[0], X)))(logits)
    masked = nominal_weights(tiles) * (logits > 5e-3)
    dweights = jax.grad(lambda w: jnp.sum(UP * read(Rewritten().apply(tiles, w)[0], X)))(masked)
    expected = dweights * nominal_weights(tiles)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize(
    "call",
    [
        lambda t: Rule().init(t, jax.random.key(0)),
        lambda t: Rule().apply(t, KERNEL),
        lambda t: Rule().encode(t, KERNEL),
        lambda t: Rule().stored(t.plan),
    ],
)
def test_the_base_rule_changes_nothing_and_says_so(call: Any) -> None:
    assert not Rule().rewrites_cells and not Rule().computes_beside
    with pytest.raises(TypeError, match=r"^Rule "):
        call(tiles_of())
