"""Other libraries' models through ours: their names, their layouts, and the logits that they gave themselves.

``library_models.json`` was written by ``tools/build_model_oracles.py`` with PyTorch, torchvision, timm and Transformers
(versions inside). Weights are drawn on both sides by one rule, from generators seeded by the arrays' names.
"""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tools.build_model_oracles import draw, image

from models.tiny import structure
from xbm_jax.errors import WeightsError
from xbm_jax.models import MODELS, Preprocess, load_backbone
from xbm_jax.models.weights.names import Row, rename

# Seconds to compile, or hundreds of megabytes of weights to draw.
SLOW = (
    "torchvision resnet50",
    "transformers resnet50",
    "torchvision densenet121",
    "torchvision vgg16_bn",
    "timm vgg16_bn",
)


@cache
def library_models() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("library_models.json").read_text())["models"]


def shapes_of(which: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in library_models()[which]["shapes"].items()}


@pytest.mark.parametrize("which", library_models())
@pytest.mark.slow
def test_every_array_finds_its_place(which: str) -> None:
    """No name is left over, none is missing, and every layout has our shape."""
    model = library_models()[which]["model"]
    # Stand-ins of the right shape that take no memory.
    theirs = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(which).items()}
    ours = rename(theirs, MODELS[model].names)
    assert {path: a.shape for path, a in ours.items()} == dict(structure(model, 10).shapes)


@pytest.mark.parametrize(
    "which", [pytest.param(w, marks=pytest.mark.slow if w in SLOW else ()) for w in library_models()]
)
def test_logits_are_the_librarys(which: str) -> None:
    """Full-size models in float32, to 2e-5 of the largest logit: rounding through up to 121 layers."""
    known = library_models()[which]
    backbone = load_backbone(known["model"], {name: draw(name, shape) for name, shape in shapes_of(which).items()})
    as_given = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, divisor=1.0)
    network = dataclasses.replace(backbone.network, preprocess=as_given)
    logits = dataclasses.replace(backbone, network=network).logits(jnp.asarray(image(known["size"])))
    expected = np.array(known["logits"])
    np.testing.assert_allclose(logits[0], expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_both_forms_of_resnet50_share_their_names() -> None:
    assert structure("resnet50", 10).shapes == structure("resnet50-v1", 10).shapes
    strided = [
        {p.split("/")[-1] for p, c in structure(n, 10).convs.items() if c.strides == (2, 2) and "/" in p}
        for n in ("resnet50-v1", "resnet50")
    ]
    assert strided == [{"conv1", "proj"}, {"conv2", "proj"}]


# ---------------------------------------------------------------------------------------------------------------------
# Layouts, each by its definition


def test_flattened_inputs_are_reordered() -> None:
    """``flatten(C, H, W) @ weight.T`` is ``flatten(H, W, C) @ kernel``."""
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(3, 2, 5)), rng.normal(size=(4, 30))
    kernel = rename({"a.weight": weight}, {"t": (Row("a", "b", flattened=(3, 2, 5)),)})["b/kernel"]
    np.testing.assert_allclose(x.transpose(1, 2, 0).reshape(-1) @ kernel, weight @ x.reshape(-1), rtol=1e-12)


def test_parts_stand_side_by_side_in_their_order() -> None:
    rows = tuple(Row(name, "qkv", part=(i, 3)) for i, name in enumerate("qkv"))
    theirs = {f"{name}.weight": np.full((2, 4), i) for i, name in enumerate("qkv")}
    made = rename(dict(reversed(theirs.items())), {"t": rows})
    np.testing.assert_array_equal(made["qkv/kernel"], np.tile(np.repeat([0, 1, 2], 2), (4, 1)))


def test_a_missing_part_is_a_missing_array() -> None:
    which = "transformers vit"
    theirs = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes_of(which).items()}
    del theirs["vit.encoder.layer.3.attention.attention.key.weight"]
    theirs["vit.decoder.dense.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(WeightsError) as caught:
        load_backbone("vit-s16", theirs)
    listed = str(caught.value).split("\n  ")[1:]
    assert listed == ["block3/qkv/kernel is missing", "vit.decoder.dense.weight is unknown"]


def test_two_arrays_for_one_place_are_told() -> None:
    theirs = {"layer1.0.conv1.weight": np.zeros((1, 1, 3, 3)), "module.layer1.0.conv1.weight": np.ones((1, 1, 3, 3))}
    made = rename(theirs, MODELS["resnet50"].names)
    assert set(made) == {"layer1_0/conv1/kernel", "module.layer1.0.conv1.weight"}
