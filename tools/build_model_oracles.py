"""Write what other libraries' models answer, for ``tests/models/test_name_tables.py``. Needs PyTorch, not xbm_jax.

    pip install torch torchvision timm transformers
    python tools/build_model_oracles.py --out tests/models/library_models.json

For every model: the names and shapes of its state dict, and logits of one image. Weights are not stored: each array is
drawn from a generator seeded by its name (``draw``), on both sides. Also ``torch_zip.pt`` and ``torch_legacy.pt``, one
small state dict in both of PyTorch's file formats.
"""

from __future__ import annotations

import argparse
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 10


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The array called ``name``: positive around one for scales and variances, else normal, kernels by their inputs."""
    rng = np.random.Generator(np.random.Philox(zlib.crc32(name.encode())))
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var" or (leaf == "weight" and len(shape) == 1):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    scale = math.prod(shape[1:]) ** -0.5 if leaf == "weight" else 0.1
    return (scale * rng.standard_normal(shape)).astype(np.float32)


def image(size: int) -> np.ndarray:
    """Network input, float32 [1, size, size, 3]."""
    return np.random.Generator(np.random.Philox(0)).standard_normal((1, size, size, 3)).astype(np.float32)


def models() -> dict[str, tuple[str, Any, int]]:
    """Model here, the library's model, and pixels of the image it is asked about; by a name for each pair."""
    import timm
    import torchvision.models as tv
    from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

    options = {"num_classes": CLASSES}
    small = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "layer_norm_eps": 1e-6}
    return {
        "torchvision resnet50": ("resnet50", tv.resnet50(**options), 64),
        "transformers resnet50": ("resnet50", ResNetForImageClassification(ResNetConfig(num_labels=CLASSES)), 64),
        "torchvision mobilenet_v2": ("mobilenet-v2", tv.mobilenet_v2(**options), 64),
        "timm mobilenetv2_100": ("mobilenet-v2", timm.create_model("mobilenetv2_100", **options), 64),
        "torchvision vgg16_bn": ("vgg16-bn", tv.vgg16_bn(**options), 96),
        "timm vgg16_bn": ("vgg16-bn", timm.create_model("vgg16_bn", **options), 224),
        "torchvision densenet121": ("densenet121", tv.densenet121(**options), 64),
        "timm vit_small_patch16_224": ("vit-s16", timm.create_model("vit_small_patch16_224", **options), 224),
        "transformers vit": ("vit-s16", ViTForImageClassification(ViTConfig(num_labels=CLASSES, **small)), 224),
    }


def answer(here: str, model: Any, size: int) -> dict[str, Any]:
    """Names, shapes and logits of one model with drawn weights."""
    import torch

    renamed = published_names(model)
    state = model.state_dict()
    drawn = {name: draw(renamed.get(name, name), tuple(value.shape)) for name, value in state.items()}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    model.load_state_dict({n: state[n] if n in counters else torch.from_numpy(a) for n, a in drawn.items()})
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(image(size).transpose(0, 3, 1, 2)))
    logits = getattr(logits, "logits", logits)
    shapes = {renamed.get(name, name): list(value.shape) for name, value in state.items()}
    return {"model": here, "size": size, "shapes": shapes, "logits": logits[0].tolist()}


def published_names(model: Any) -> dict[str, str]:
    """Names in published files where they are not the module's own: Transformers renames parts when it saves."""
    if not hasattr(model, "save_pretrained"):
        return {}
    import tempfile

    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        for i, (_, value) in enumerate(model.state_dict().items()):
            value.fill_(i + 1)
        model.save_pretrained(folder)
        saved = load_file(Path(folder) / "model.safetensors")
    number = {int(value.flatten()[0]): name for name, value in saved.items()}
    return {name: number[i + 1] for i, name in enumerate(model.state_dict())}


def state_dicts(folder: Path) -> None:
    """One state dict in PyTorch's two formats: several types, a view with strides, shared storage, a wrapper."""
    import torch

    base = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
    state = {
        "plain": base,
        "transposed": base.T,
        "row": base[2],
        "half": torch.tensor([1.5, -2.25], dtype=torch.float16),
        "brain": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        "double": torch.tensor([[1e-300]], dtype=torch.float64),
        "parameter": torch.nn.Parameter(torch.ones(3)),
        "counter": torch.tensor(1000),
        "empty": torch.zeros(0, 3),
    }
    checkpoint = {"state_dict": state, "best": 91.5, "optimizer": {"steps": [1, 2]}}
    torch.save(checkpoint, folder / "torch_zip.pt")
    torch.save(checkpoint, folder / "torch_legacy.pt", _use_new_zipfile_serialization=False)


def main() -> None:
    import timm
    import torch
    import torchvision
    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, timm, transformers)}
    answers = {name: answer(*entry) for name, entry in models().items()}
    arguments.out.write_text(json.dumps({"versions": versions, "models": answers}, separators=(",", ":")) + "\n")
    state_dicts(arguments.out.parent)


if __name__ == "__main__":
    main()
