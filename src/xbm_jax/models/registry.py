"""Backbones by name, with the weights that ship in the package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from xbm_jax.errors import ModelError, WeightsError
from xbm_jax.models.from_module import structure_of
from xbm_jax.models.inputs import InputSpec
from xbm_jax.models.network import Backbone, Calibration, Network, backbone
from xbm_jax.models.preprocess import PREPROCESSES, Preprocess, load_preprocess
from xbm_jax.models.weights import name_tables
from xbm_jax.models.weights.files import read_weights
from xbm_jax.models.weights.names import Table, flattened, rename
from xbm_jax.models.zoo.bert import Bert
from xbm_jax.models.zoo.densenet import DenseNet
from xbm_jax.models.zoo.mobilenet import MobileNetV2
from xbm_jax.models.zoo.resnet import CifarResNet
from xbm_jax.models.zoo.resnet50 import ResNet50
from xbm_jax.models.zoo.vgg import VggBn
from xbm_jax.models.zoo.vit import VisionTransformer

__all__ = ["MODELS", "load_backbone", "named_network"]

_IMAGENET, _CAFFE, _HALF = (PREPROCESSES[name] for name in ("imagenet", "caffe", "half"))


@dataclass(frozen=True)
class _Entry:
    """How to build a named backbone, its names elsewhere, and the file under ``assets/weights`` if it ships any.

    ``inputs``: instead of preprocessing and image size, of a network of something else. ``features``: width of the
    features of weights that come without a head; the source's answer is then the feature itself.
    """

    build: Callable[..., nnx.Module]
    head: str
    preprocess: Preprocess | None
    image_size: int | None
    names: Mapping[str, Table] = field(default_factory=dict)
    bundled: str | None = None
    inputs: InputSpec | None = None
    features: int | None = None


_TOKENS = InputSpec.of(
    {"ids": jax.ShapeDtypeStruct((1,), np.int32), "mask": jax.ShapeDtypeStruct((1,), np.bool_)},
    free=(0,),
    mask="mask",
    below={"ids": 30_522},
)

MODELS: Mapping[str, _Entry] = {
    "cifar-resnet20": _Entry(
        partial(CifarResNet, 20), "linear", _IMAGENET, 32, name_tables.CIFAR_RESNET, "cifar10_resnet20"
    ),
    "cifar-resnet56": _Entry(partial(CifarResNet, 56), "linear", _IMAGENET, 32, name_tables.CIFAR_RESNET),
    "mobilenet-v2": _Entry(MobileNetV2, "head", _IMAGENET, 224, name_tables.MOBILENET_V2),
    "resnet50": _Entry(ResNet50, "fc", _IMAGENET, 224, name_tables.RESNET50),
    "resnet50-v1": _Entry(partial(ResNet50, stride_at="conv1", epsilon=1e-3), "fc", _CAFFE, 224, name_tables.RESNET50),
    "vgg16-bn": _Entry(VggBn, "fc3", _IMAGENET, 224, name_tables.VGG16_BN),
    "densenet121": _Entry(DenseNet, "classifier", _IMAGENET, 224, name_tables.DENSENET),
    "vit-s16": _Entry(VisionTransformer, "head", _HALF, 224, name_tables.VIT, features=384),
    "minilm-l6": _Entry(Bert, "head", None, None, name_tables.BERT, inputs=_TOKENS, features=384),
}
"""Backbones by name. ``resnet50`` is torchvision's form (v1.5), ``resnet50-v1`` the original one as Keras has it;
``minilm-l6`` takes ``{"ids", "mask"}``, as :func:`xbm_jax.data.load_tokenizer` makes them of sentences."""


def load_backbone(
    name: str = "cifar-resnet20",
    weights: str | Path | Mapping[str, Any] | None = None,
    *,
    preprocess: Preprocess | str | Path | None = None,
) -> Backbone:
    """A pretrained backbone.

    Args:
        name: one of :data:`MODELS`.
        weights: a file (see :func:`xbm_jax.models.weights.files.read_weights`) or arrays by name, in our names or
            those of a library that the backbone's name tables know, perhaps nested (Flax's ``params`` and
            ``batch_stats``); ``None`` for those in the package.
        preprocess: what these weights were trained with, where that is not what :data:`MODELS` says: a
            :class:`~xbm_jax.models.Preprocess`, or where :func:`~xbm_jax.models.load_preprocess` finds it (``"deit"``,
            say).

    Raises:
        ModelError: unknown name, or preprocessing of other inputs. WeightsError: no weights, or such as do not fit; all
            mismatches are listed.
    """
    entry = MODELS.get(name)
    if entry is None:
        raise ModelError("model", name, "one of " + ", ".join(MODELS))
    calibration = None
    if weights is None:
        if entry.bundled is None:
            having = ", ".join(n for n, e in MODELS.items() if e.bundled)
            raise WeightsError("weights", None, f"a weight file: {name} ships none (these models do: {having})")
        arrays, calibration = _bundled(entry.bundled)
    else:
        arrays = rename(flattened(weights) if isinstance(weights, Mapping) else read_weights(weights), entry.names)
    if entry.features is not None and not any(path.startswith(f"{entry.head}/") for path in arrays):
        head = {"kernel": np.eye(entry.features, dtype=np.float32), "bias": np.zeros(entry.features, np.float32)}
        arrays |= {f"{entry.head}/{name}": array for name, array in head.items()}
    classes = np.shape(arrays.get(f"{entry.head}/bias", np.zeros(1)))
    return backbone(named_network(name, classes[0] if classes else 1, preprocess), arrays, calibration)


def named_network(name: str, num_classes: int, preprocess: Preprocess | str | Path | None = None) -> Network:
    """The structure of a registered backbone, without weights; ``preprocess`` as :func:`load_backbone` takes it."""
    entry = MODELS.get(name)
    if entry is None:
        raise ModelError("model", name, "one of " + ", ".join(MODELS))
    own = entry.preprocess
    if preprocess is not None:
        own = preprocess if isinstance(preprocess, Preprocess) else load_preprocess(preprocess)
        if entry.preprocess is None or len(own.mean) != len(entry.preprocess.mean):
            takes = entry.preprocess and f"one of {len(entry.preprocess.mean)} channels"
            raise ModelError("preprocess", str(preprocess), f"{takes or 'None: it takes no images'}, for {name}")
    # Without a trial, which takes as long again for a large module: tests try every registered one.
    return structure_of(
        lambda: entry.build(num_classes=num_classes, rngs=nnx.Rngs(0)),
        name=name,
        head=entry.head,
        preprocess=own,
        image_size=entry.image_size,
        inputs=entry.inputs,
    )


def _bundled(name: str) -> tuple[dict[str, np.ndarray], Calibration]:
    folder = resources.files("xbm_jax") / "assets" / "weights"
    with resources.as_file(folder / f"{name}.npz") as path:
        arrays = read_weights(path)
    stored = json.loads((folder / f"{name}.json").read_text())
    return arrays, Calibration(
        input_peak=stored["input_peak"],
        signed=frozenset(stored["signed"]),
        adc={path: (low, high) for path, (low, high) in stored["adc"].items()},
        spec=stored["spec"],
        source=stored["source"],
    )
