"""Random modules of every kind of layer: a chip answers as the module does, or the module is refused by name."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cost import slow_but
from models.random_linen import LINEN_PARTS, LinenNetwork, linen_weights
from models.random_modules import IMAGE, NEVER, PARTS, Network, fill, tags
from models.random_transformers import Transformer, transformer_inputs
from models.tiny import IDEAL, PREPROCESS
from xbm_jax.crossbar import Tiles, nominal_weights, read, with_signed_inputs
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.errors import XbmError
from xbm_jax.masks import Method
from xbm_jax.models import (
    Backbone,
    Chip,
    backbone,
    backbone_from_module,
    forward,
    network_from_module,
    program,
    source_trained,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (3, IMAGE, IMAGE, 3), np.uint8)
SOURCE = Method("source", norms="frozen")
SOME = (3, 9, 19, 21, 31, 33, 38, 41, 42, 62, 65, 67, 72, 101, 163, 174)


EXACT, QUANTISED, HALVED = 2e-6, 0.04, 0.03
"""Largest errors of a logit, as shares of the largest one: float32 sums of some hundred products in another order;
8 bits of each layer's inputs, through norms that may enlarge what is left of them; layers that round to bfloat16."""


class Outcome(NamedTuple):
    """What came of one module; errors are relative to the largest logit."""

    parts: list[str]
    refused: str | None
    plain: float = 0.0
    exact: float = 0.0
    quantised: float = 0.0
    halved: bool = False


def outcome(seed: int) -> Outcome:
    """Build, read and compare one module. Only an XbmError is a refusal, and only before anything is computed."""
    try:
        network = network_from_module(
            lambda: Network(seed, rngs=nnx.Rngs(seed)),
            name="random",
            head="head",
            preprocess=PREPROCESS,
            image_size=IMAGE,
        )
    except XbmError as refusal:
        return Outcome([], str(refusal))
    module = Network(seed, rngs=nnx.Rngs(seed))
    made = backbone(network, fill(module, seed))
    module.eval()
    want = module(network.prepared(jnp.asarray(IMAGES)))
    halved = any(getattr(m, "dtype", None) == jnp.bfloat16 for _, m in nnx.iter_modules(module))
    return compared(made, tags(module), want, IMAGES, halved)


def compared(made: Backbone, parts: list[str], want: Any, inputs: Any, halved: bool = False) -> Outcome:
    """How far the backbone's float answer, and its chip's, are from what the module itself answers."""
    want = np.asarray(want, np.float32)
    top = np.abs(want).max()

    def error(got: Any) -> float:
        return float(np.abs(np.asarray(got, np.float32) - want).max() / top)

    return Outcome(parts, None, error(made.logits(inputs)), *_read(made, error, inputs), halved)


def linen_outcome(seed: int) -> Outcome:
    """:func:`outcome` of a Linen module of the same images, prepared as floats."""
    module, x = LinenNetwork(seed), np.asarray(PREPROCESS(jnp.asarray(IMAGES)))
    try:
        variables = linen_weights(jax.eval_shape(module.init, jax.random.key(0), x), seed)
        made = backbone_from_module(module, variables=variables, inputs=jax.ShapeDtypeStruct(x.shape[1:], "float32"))
    except XbmError as refusal:
        return Outcome([], str(refusal))
    return compared(made, module.parts(), module.apply(variables, x), x)


def transformer_outcome(seed: int) -> Outcome:
    """:func:`outcome` of a small transformer, of token ids and a mask; nothing of it may be refused."""
    module = Transformer(seed, nnx.Rngs(seed))
    fill(module, seed)
    inputs = transformer_inputs(seed)
    made = backbone_from_module(module, inputs=jax.tree.map(lambda a: a[0], inputs))
    return compared(made, ["transformer"], module(**jax.tree.map(jnp.asarray, inputs)), inputs)


def _read(made: Backbone, error: Any, inputs: Any) -> tuple[float, float]:
    """Errors of a chip whose inputs are not rounded, and of one that rounds them to 8 bits."""
    chip = program(made, IDEAL, jax.random.key(0))
    chip = chip.replace(tiles={path: with_signed_inputs(tiles, True) for path, tiles in chip.tiles.items()})

    @jax.jit
    def both(chip: Chip, images: Any) -> list[jax.Array]:
        peaks: dict[str, jax.Array] = {}

        def exact(path: str, tiles: Tiles, x: jax.Array, *_: Any) -> jax.Array:
            peaks[path] = jnp.maximum(peaks.get(path, 1e-30), jnp.abs(x).max())
            return product(x, nominal_weights(tiles), tiles.plan.conv)

        def rounded(path: str, tiles: Tiles, x: jax.Array, gain: Any, key: Any) -> jax.Array:
            scale = peaks[path] / input_code_limits(8, signed=True)[1]
            return read(tiles.replace(input_scale=scale), x, gain, key)

        return [
            forward(chip, SOURCE, source_trained(chip), chip.stats, images, layer_read=how)[0]
            for how in (exact, rounded)
        ]

    first, second = both(chip, jax.tree.map(jnp.asarray, inputs))
    return error(first), error(second)


def check(found: Outcome, rounded: float = QUANTISED) -> None:
    """A module that is not refused is answered for: exactly where inputs are not rounded, nearly where they are."""
    if found.refused is None:
        exact = HALVED if found.halved else EXACT
        assert found.plain < exact and found.exact < exact, found
        assert found.quantised < rounded + (HALVED if found.halved else 0), found


@pytest.mark.parametrize("seed", slow_but(SOME[:3], SOME))
def test_a_chip_answers_as_the_module_does_or_refuses_it(seed: int) -> None:
    check(outcome(seed))


@pytest.mark.parametrize("seed", slow_but((1, 3), range(60)))
def test_linen_modules(seed: int) -> None:
    check(linen_outcome(seed))


def test_every_linen_part_is_tried() -> None:
    drawn = {part for seed in range(60) for part in LinenNetwork(seed).parts()}
    assert drawn == set(LINEN_PARTS)


@pytest.mark.parametrize("seed", slow_but((0,), range(30)))
def test_small_transformers(seed: int) -> None:
    found = transformer_outcome(seed)
    assert found.refused is None
    check(found, rounded=0.06)  # up to fourteen layers behind each other round their inputs, twice as many as above


@pytest.mark.slow
def test_three_hundred_modules() -> None:
    """Every kind of part is answered for or refused by name; ``pytest -s`` shows how many of each."""
    found = [outcome(seed) for seed in range(300)]
    right, refused = Counter[str](), Counter[str]()
    for one in found:
        check(one)
        right.update(one.parts)
        refused.update([] if one.refused is None else [one.refused.rpartition(": ")[2][:80]])
    print(f"\n{sum(one.refused is None for one in found)} right, by parts: {dict(right.most_common())}")
    print(f"{refused.total()} refused, by what is allowed: {dict(refused.most_common())}")
    assert refused.total() > 75 and len(found) - refused.total() > 75
    assert right.keys() == set(PARTS) - set(NEVER)
