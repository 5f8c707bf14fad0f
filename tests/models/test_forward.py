"""The forward pass of a chip: layer by layer against the float network, norm policies, noise keys, features."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.tiny import CLASSES, CONVERTED, CONVS, IDEAL, NOISY, NORMS, tiny_backbone, tiny_chip, tiny_images
from xbm_jax.crossbar import Tiles, nominal_weights, read
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import SpecError
from xbm_jax.masks import Method, methods
from xbm_jax.models import Chip, forward, initial_trained, source_trained

SOURCE = Method("source", norms="frozen")


def run(chip: Chip, images: Any, method: Method = SOURCE, **options: Any) -> tuple[jax.Array, dict]:
    return forward(chip, method, source_trained(chip), chip.stats, jnp.asarray(images), **options)


def nominal(chip: Chip) -> Any:
    """The float network with the weights that the chip's levels stand for."""
    kernels = {f"{path}/kernel": nominal_weights(tiles) for path, tiles in chip.tiles.items()}
    return dataclasses.replace(tiny_backbone(), arrays={**tiny_backbone().arrays, **kernels})


# ---------------------------------------------------------------------------------------------------------------------
# What is computed


def test_exact_reads_of_nominal_weights_are_the_float_network() -> None:
    """Norms, biases, head and order of layers, apart from what a crossbar does to a product."""
    chip, images = tiny_chip(), tiny_images()
    seen = []

    def exact(path: str, tiles: Tiles, x: jax.Array, gain: Any, key: Any) -> jax.Array:
        seen.append((path, gain, key))
        return product(x, nominal_weights(tiles), tiles.plan.conv)

    logits, stats = run(chip, images, layer_read=exact)
    assert seen == [("stem", None, None), ("blocks/0/conv", None, None), ("blocks/1/conv", None, None)]
    np.testing.assert_allclose(logits, nominal(chip).logits(images), atol=2e-5)
    assert float(jnp.abs(logits - tiny_backbone().logits(images)).max()) > 1e-3
    assert stats == chip.stats


def test_layers_answer_by_their_crossbar_read() -> None:
    """Every layer's answer on an ideal chip is its quantised input times its nominal weights, in double precision."""
    chip = tiny_chip()
    answers = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, gain: Any, key: Any) -> jax.Array:
        answers[path] = (np.asarray(x, np.float64), read(tiles, x, gain, key))
        return answers[path][1]

    images = tiny_images(4)
    np.testing.assert_array_equal(run(chip, images, layer_read=observe)[0], run(chip, images)[0])
    for path, (x, y) in answers.items():
        tiles = chip.tiles[path]
        step, kernel = float(tiles.input_scale or 0), np.asarray(nominal_weights(tiles), np.float64)
        codes = np.clip(np.round(x / step), -127 if path == "stem" else 0, 127 if path == "stem" else 255)
        expected = convolve(codes * step, kernel)
        close = np.abs(np.asarray(y) - expected) < 1e-5 * np.abs(expected).max()
        assert close.mean() > 0.995, path  # an input within float32 of a tie may take the other code


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3x3 convolution of stride 2 with one pixel of zeros around, by its definition."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    size = (x.shape[1] + 1) // 2
    rows = [
        [np.tensordot(padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], kernel, 3) for j in range(size)]
        for i in range(size)
    ]
    return np.stack([np.stack(row, 1) for row in rows], 1)


def test_input_quantisation_is_all_that_an_ideal_chip_adds() -> None:
    """Its error shrinks sixteenfold with four more bits; with eight it is under 2 % of the logits' spread."""
    images = tiny_images(16)
    errors = []
    for bits in (4, 8):
        chip = tiny_chip(IDEAL.replace(input_bits=bits))
        errors.append(float(jnp.abs(run(chip, images)[0] - nominal(chip).logits(images)).mean()))
    assert 8 < errors[0] / errors[1] < 32
    assert 0 < errors[1] < 0.02 * float(jnp.std(nominal(tiny_chip()).logits(images)))


def test_biases_are_added_digitally() -> None:
    """A larger bias moves the layer's answer by just as much, though no cell holds it."""
    chip, images = tiny_chip(), tiny_images(2)
    inputs = {}

    def observe(name: str) -> Any:
        def layer(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
            inputs[name, path] = x
            return product(x, nominal_weights(tiles), tiles.plan.conv)

        return layer

    shift = jnp.arange(8.0)
    raised = chip.replace(digital={**chip.digital, "blocks/0/conv/bias": chip.digital["blocks/0/conv/bias"] + shift})
    plain_norm = {"scale": jnp.ones(8), "bias": jnp.full(8, 50.0)}  # so that no ReLU cuts
    unit = {"mean": jnp.zeros(8), "var": jnp.ones(8)}
    for name, one in (("before", chip), ("after", raised)):
        one = one.replace(norms={**one.norms, "blocks/0/bn": plain_norm}, stats={**one.stats, "blocks/0/bn": unit})
        run(one, images, layer_read=observe(name))
    moved = inputs["after", "blocks/1/conv"] - inputs["before", "blocks/1/conv"]
    np.testing.assert_allclose(moved, jnp.broadcast_to(shift, moved.shape), atol=1e-3)


def test_features_are_the_heads_inputs() -> None:
    chip, images = tiny_chip(), tiny_images(3)
    features, _ = run(chip, images, features=True)
    assert features.shape == (3, 8)
    np.testing.assert_allclose(features @ chip.head["kernel"] + chip.head["bias"], run(chip, images)[0], atol=1e-5)


def test_gains_at_weights_or_columns_are_one() -> None:
    chip, images, method = tiny_chip(), tiny_images(3), methods.xbm()
    trained = initial_trained(chip, method, CLASSES, jax.random.key(0))
    trained["masks"] = jax.tree.map(lambda m: jax.random.normal(jax.random.key(1), m.shape), trained["masks"])
    at = [forward(chip, method, trained, chip.stats, jnp.asarray(images), gain_at=g)[0] for g in ("weights", "columns")]
    np.testing.assert_allclose(at[0], at[1], atol=1e-5)
    np.testing.assert_array_less(1e-2, jnp.abs(at[0] - run(chip, images)[0]).max())


# ---------------------------------------------------------------------------------------------------------------------
# Norm policies and statistics


@pytest.mark.parametrize(
    ("norms", "train", "follows"),
    [("full", True, True), ("full", False, False), ("affine", True, False), ("frozen", True, False)],
)
def test_running_statistics_follow_only_where_norms_are_trained_in_full(norms: Any, train: bool, follows: bool) -> None:
    chip, images = tiny_chip(), tiny_images(8)
    method = Method("m", norms=norms)
    trained = initial_trained(chip, method, CLASSES, jax.random.key(0))
    before = jax.tree.map(np.asarray, chip.stats)
    _, after = forward(chip, method, trained, chip.stats, jnp.asarray(images), train=train)
    jax.tree.map(np.testing.assert_array_equal, chip.stats, before)
    changed = {path: bool((after[path]["mean"] != before[path]["mean"]).all()) for path in after}
    assert changed == dict.fromkeys(NORMS, follows)


def test_a_tasks_own_norms_take_the_place_of_the_chips() -> None:
    chip, images = tiny_chip(), tiny_images(4)
    trained = source_trained(chip)
    silent = {"scale": jnp.zeros(8), "bias": jnp.full(8, 2.0)}
    logits, _ = forward(chip, SOURCE, {**trained, "norms": {"blocks/1/bn": silent}}, chip.stats, jnp.asarray(images))
    features = jnp.full((4, 8), 2.0)
    np.testing.assert_allclose(logits, features @ chip.head["kernel"] + chip.head["bias"], atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Read noise


def test_every_read_draws_noise_of_its_own() -> None:
    """Each layer's read gets another key, and all of them follow from the pass's."""

    def keys_of(seed: int) -> list[tuple]:
        keys = []

        def observe(path: str, tiles: Tiles, x: jax.Array, gain: Any, key: jax.Array) -> jax.Array:
            keys.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return product(x, nominal_weights(tiles), tiles.plan.conv)

        run(tiny_chip(), tiny_images(2), key=jax.random.key(seed), layer_read=observe)
        return keys

    first, other = keys_of(0), keys_of(1)
    assert len(first) == len(CONVS)
    assert len(set(first + other)) == 2 * len(CONVS)
    assert first == keys_of(0)


def test_a_noisy_chip_needs_a_key() -> None:
    with pytest.raises(SpecError, match="this chip's reads are noisy"):
        run(tiny_chip(NOISY), tiny_images(2))


# ---------------------------------------------------------------------------------------------------------------------
# Frozen and trained


@pytest.mark.parametrize("method", [methods.xbm(), methods.finetune(), methods.norm_only(), methods.head_only()])
def test_training_starts_from_copies(method: Method) -> None:
    """A training step may donate what it trains; no buffer of the chip may be among it."""
    chip = tiny_chip()
    trained = initial_trained(chip, method, 7, jax.random.key(0))
    assert trained["head"]["kernel"].shape == (8, 7)
    assert float(jnp.abs(trained["head"]["kernel"]).max()) <= 8**-0.5
    np.testing.assert_array_equal(trained["head"]["bias"], 0)
    assert set(trained["masks"]) == (set() if method.rule is None else set(CONVS))
    assert set(trained["norms"]) == (set() if method.norms == "frozen" else set(NORMS))
    frozen = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(chip)}
    assert frozen.isdisjoint(leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(trained))


def test_vmap_over_chips_is_a_loop() -> None:
    chips = [tiny_chip(NOISY, seed) for seed in (0, 1)]
    chips = [c.replace(tiles={p: t.replace(read_variance=None) for p, t in c.tiles.items()}) for c in chips]
    images = jnp.asarray(tiny_images(3))
    many = jax.tree.map(lambda *leaves: jnp.stack(leaves), *chips)
    answer = jax.jit(lambda chip: run(chip, images)[0])
    together = jax.jit(jax.vmap(answer))(many)
    for i, chip in enumerate(chips):
        np.testing.assert_allclose(together[i], answer(chip), atol=1e-5)
    assert float(jnp.abs(together[0] - together[1]).max()) > 1e-3


def test_converted_chips_answer_near_ideal_ones() -> None:
    images = tiny_images(16)
    ideal, coarse = run(tiny_chip(), images)[0], run(tiny_chip(CONVERTED), images)[0]
    spread = float(jnp.std(ideal))
    assert 1e-3 * spread < float(jnp.abs(ideal - coarse).mean()) < 0.1 * spread
