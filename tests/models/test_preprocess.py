"""Preprocessing that resizes and crops, of weights that were trained otherwise than the registry says."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from models.tiny import IDEAL, tiny_images
from xbm_jax.banks import MaskBank, load_chip, save_chip
from xbm_jax.errors import BankError, ModelError, XbmError
from xbm_jax.models import MODELS, PREPROCESSES, Preprocess, calibrate, load_backbone, load_preprocess, program
from xbm_jax.models.zoo.vit import VisionTransformer

PLAIN = Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, divisor=1.0)
WIDTH, SIDE = 12, 32
NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "proj": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}


@pytest.mark.parametrize(("name", "number"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize("shape", [(40, 30), (12, 20)])
def test_resized_and_cropped_images_are_pillows(name: Any, number: int, shape: tuple[int, int]) -> None:
    """To one level of 255: Pillow rounds twice, once an axis."""
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    height, width = (16 * side // min(shape) for side in shape)
    made = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling(number)))
    top, left = round((height - 9) / 2), round((width - 9) / 2)
    step = dataclasses.replace(PLAIN, resize=16, crop=9, filter=name)
    found = np.asarray(step(jnp.asarray(image[None])))[0]
    assert np.abs(found - made[top : top + 9, left : left + 9]).max() <= 1
    assert (found == np.round(found)).all() and found.min() >= 0 and found.max() <= 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": 0}, "resize = 0: a whole number of pixels"),
        ({"crop": True}, "crop = True: a whole number"),
        ({"resize": 8, "crop": 9}, "crop = 9: at most resize = 8"),
        ({"filter": "nearest"}, "filter = 'nearest': one of 'bilinear', 'bicubic'"),
    ],
)
def test_sizes_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(XbmError, match=message):
        dataclasses.replace(PLAIN, **changes)


def test_images_smaller_than_the_crop_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 13 pixels a side"):
        dataclasses.replace(PLAIN, crop=13)(jnp.zeros((1, 12, 12, 3)))


# What facebook/deit-small-patch16-224 says of itself, and an older form.
DEIT = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
    "size": 256,
}
AUGREG = {
    "do_rescale": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 224, "width": 224},
}


def test_a_configuration_of_hugging_face_is_read(tmp_path: Path) -> None:
    def read(config: Any) -> Preprocess:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
        return load_preprocess(tmp_path / "preprocessor_config.json")

    assert read(DEIT) == PREPROCESSES["deit"] == load_preprocess("dino")
    assert read(AUGREG) == dataclasses.replace(PREPROCESSES["half"], resize=224)
    assert read(DEIT | {"size": {"shortest_edge": 256}, "do_rescale": False}).divisor == 1.0
    for config in ([], {}, DEIT | {"size": {"height": 2, "width": 3}}, DEIT | {"resample": 0}):
        with pytest.raises(ModelError, match="preprocessor_config"):
            read(config)
    with pytest.raises(ModelError, match="one of imagenet, caffe, half, deit, dino"):
        load_preprocess("swin")


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """``vit-s16`` of one small block, and arrays of it by Transformers' names, without a head as DINO's have none."""
    build = partial(VisionTransformer, image_size=SIDE, width=WIDTH, depth=1, heads=2)
    entry: Any = dataclasses.replace(MODELS["vit-s16"], build=build, image_size=SIDE, features=WIDTH)
    monkeypatch.setitem(MODELS, "vit-s16", entry)  # type: ignore[arg-type]
    rng, block, wide = np.random.default_rng(0), "encoder.layer.0", 4 * WIDTH
    shapes = {f"{block}.{theirs}": (WIDTH,) for ours, theirs in NAMES.items() if ours.startswith("norm")}
    shapes |= {"layernorm": (WIDTH,), "embeddings.patch_embeddings.projection": (WIDTH, 3, 16, 16)}
    shapes |= {f"{block}.attention.attention.{name}": (WIDTH, WIDTH) for name in ("query", "key", "value")}
    shapes |= {f"{block}.{NAMES['proj']}": (WIDTH, WIDTH), "pooler.dense": (WIDTH, WIDTH)}
    shapes |= {f"{block}.{NAMES['fc1']}": (wide, WIDTH), f"{block}.{NAMES['fc2']}": (WIDTH, wide)}
    arrays = {f"{name}.weight": 0.2 * rng.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": 0.2 * rng.normal(size=shape[0]) for name, shape in shapes.items()}
    arrays["embeddings.cls_token"] = rng.normal(size=(1, 1, WIDTH))
    arrays["embeddings.position_embeddings"] = rng.normal(size=(1, (SIDE // 16) ** 2 + 1, WIDTH))
    return {name: array.astype(np.float32) for name, array in arrays.items()}


OWN = Preprocess((0.4,) * 3, (0.2,) * 3, resize=40, crop=SIDE, filter="bicubic")


def test_weights_without_a_head_answer_their_features_by_their_own_preprocessing(small_vit: dict[str, Any]) -> None:
    backbone, images = load_backbone("vit-s16", small_vit, preprocess=OWN), tiny_images(3)
    features = backbone.logits(images)
    assert features.shape == (3, WIDTH)
    module = backbone.network.module(dict(backbone.arrays))
    module.eval()
    np.testing.assert_allclose(features, module(OWN(jnp.asarray(images))), atol=1e-5)  # type: ignore[operator]
    plain = dataclasses.replace(OWN, resize=SIDE, mean=(0.5,) * 3)
    assert not np.allclose(load_backbone("vit-s16", small_vit, preprocess=plain).logits(images), features, atol=1e-3)


def test_a_stored_chip_keeps_its_preprocessing_and_a_bank_holds_it_to_it(
    small_vit: dict[str, Any], tmp_path: Path
) -> None:
    backbone = load_backbone("vit-s16", small_vit, preprocess=OWN)
    chip = calibrate(program(backbone, IDEAL, jax.random.key(0)), tiny_images(4))
    save_chip(chip, tmp_path / "chip")
    assert load_chip(tmp_path / "chip").network.preprocess == OWN
    MaskBank.create(tmp_path / "bank", chip)
    other = load_backbone("vit-s16", small_vit, preprocess=dataclasses.replace(OWN, crop=None))
    with pytest.raises(BankError, match=r"chip\.preprocess\.crop = None: 32, what the bank was learned on"):
        MaskBank.open(tmp_path / "bank", program(other, IDEAL, jax.random.key(0)))


@pytest.mark.parametrize(
    ("model", "preprocess", "message"),
    [
        ("minilm-l6", "deit", "None: it takes no images"),
        ("vit-s16", Preprocess((0.5,), (0.5,)), "one of 3 channels, for vit-s16"),
        ("vit-s16", "nothing", "preprocessor_config.json"),
    ],
)
def test_preprocessing_of_other_inputs_is_refused(model: str, preprocess: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_backbone(model, {"x": np.zeros(3)}, preprocess=preprocess)
