"""The ImageNet backbones: published sizes, real weights, and mask bits on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from models.tiny import structure
from xbm_jax.data import Dataset, load
from xbm_jax.models import MODELS, load_backbone

# torchvision's, timm's and Transformers' published counts; those of the CIFAR networks are in test_resnet.py.
PARAMETERS = {
    "mobilenet-v2": 3_504_872,
    "resnet50": 25_557_032,
    "resnet50-v1": 25_557_032,
    "vgg16-bn": 138_365_992,
    "densenet121": 7_978_856,
    "vit-s16": 22_050_664,
    "minilm-l6": 22_713_216 - (384 + 1) * 384 + 385 * 1000,  # its pooler is left out, and a head added
}
# ImageNet's class ids of Imagenette's ten classes, in its order.
IMAGENETTE = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def test_every_model_has_its_published_size() -> None:
    assert PARAMETERS.keys() == {name for name in MODELS if not name.startswith("cifar")}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    shapes = structure(name, 1000).shapes
    trained = [s for p, s in shapes.items() if p.rsplit("/", 1)[-1] not in ("mean", "var")]
    assert sum(map(math.prod, trained)) == PARAMETERS[name]


@pytest.mark.parametrize(("rows", "bits"), [(32, 732_992), (64, 366_528), (128, 183_936), (256, 93_888)])
def test_column_mask_bits_of_resnet50(rows: int, bits: int) -> None:
    """``sum ceil(K / R) N`` over its 53 convolutions: 1.434 % of all parameters at 64 rows, the XBM paper's 1.4 %."""
    network = structure("resnet50", 1000)
    shapes = [network.kernel_shape(path) for path in network.kernels if path != network.head]
    assert len(shapes) == 53
    assert sum(math.ceil(math.prod(s[:-1]) / rows) * s[-1] for s in shapes) == bits


def test_what_sits_on_crossbars() -> None:
    """All kernels but the head: depthwise convolutions, dense layers within the network, attention's projections."""
    counts = {name: len(structure(name, 1000).kernels) - 1 for name in PARAMETERS}
    expected = {"mobilenet-v2": 52, "resnet50": 53, "resnet50-v1": 53, "vgg16-bn": 15, "densenet121": 120}
    assert counts == expected | {"vit-s16": 49, "minilm-l6": 36}
    assert {"fc1", "fc2"} < set(structure("vgg16-bn", 1000).kernels)
    assert {"block0/qkv", "block11/fc2", "patch_embed"} < set(structure("vit-s16", 1000).kernels)
    groups = {p: c.groups for p, c in structure("mobilenet-v2", 1000).convs.items() if c.groups > 1}
    assert len(groups) == 17 and groups["block17/depthwise"] == 960


def imagenette(shared_data: Callable[[str], Path]) -> Dataset:
    return load(f"npz:{shared_data('imagenette_128px')}")


def hits(name: str, weights: Path, images: np.ndarray, labels: np.ndarray) -> int:
    """Images whose best class, of Imagenette's ten, is their label."""
    network = load_backbone(name, weights)
    parts = [np.asarray(network.logits(images[i : i + 50]))[:, IMAGENETTE] for i in range(0, len(images), 50)]
    return int((np.concatenate(parts).argmax(-1) == labels).sum())


@pytest.mark.slow
def test_mobilenet_v2_with_real_weights(shared_data: Callable[[str], Path]) -> None:
    """92.8 % of all 1,000 images at 128 pixels, 10-way."""
    data = imagenette(shared_data)
    images, labels = np.concatenate([data.x_train, data.x_test]), np.concatenate([data.y_train, data.y_test])
    assert len(images) == 1000
    assert hits("mobilenet-v2", shared_data("imagenet_mobilenetv2"), images, labels) == 928


@pytest.mark.slow
def test_resnet50_with_real_weights(shared_data: Callable[[str], Path]) -> None:
    """94.0 % of the 250 test images at 128 pixels, 10-way."""
    data = imagenette(shared_data)
    assert len(data.y_test) == 250
    assert hits("resnet50-v1", shared_data("imagenet_resnet50"), data.x_test, data.y_test) == 235
