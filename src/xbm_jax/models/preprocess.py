"""From images to what a network takes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.validate import check_choice
from xbm_jax.errors import ModelError
from xbm_jax.models.weights.files import HUB, downloaded
from xbm_jax.paths import as_path

__all__ = ["PREPROCESSES", "Preprocess", "load_preprocess"]

_PILLOW = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters, which configurations name."""


@dataclass(frozen=True)
class Preprocess:
    """From uint8 NHWC images to network inputs: ``(image / divisor - mean) / std``, perhaps resized and cropped before.

    Args:
        mean, std: one number a channel.
        divisor: of pixels.
        reverse: turn RGB into BGR.
        resize: pixels that the shorter side is brought to, the longer one in proportion (torchvision's ``Resize``), by
            a filter that averages where it shrinks, as Pillow does; pixels stay whole numbers from 0 to 255. ``None``
            leaves images as they are.
        crop: pixels a side of the middle that is kept (``CenterCrop``). ``None`` keeps all.
        filter: of resizing.

    Raises:
        ModelError: numbers that are none, or a crop beyond what resizing leaves.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float = 255.0
    reverse: bool = False
    resize: int | None = None
    crop: int | None = None
    filter: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ModelError("Preprocess.std", self.std, f"one number for each of the {len(self.mean)} means")
        for name, values in (("mean", self.mean), ("std", self.std), ("divisor", (self.divisor,))):
            if not np.isfinite(values).all() or (name != "mean" and 0 in values):
                allowed = "finite numbers" if name == "mean" else "finite numbers other than 0"
                raise ModelError(f"Preprocess.{name}", getattr(self, name), allowed)
        for name in ("resize", "crop"):
            pixels = getattr(self, name)
            if pixels is not None and (isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 1):
                raise ModelError(f"Preprocess.{name}", pixels, "a whole number of pixels, at least 1, or None")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise ModelError("Preprocess.crop", self.crop, f"at most resize = {self.resize}, the shorter side")
        check_choice("Preprocess.filter", self.filter, tuple(_PILLOW.values()))

    def __call__(self, images: jax.Array) -> jax.Array:
        x = self._cropped(self._resized(jnp.asarray(images, jnp.float32)))
        x = x[..., ::-1] if self.reverse else x
        # One multiply and one add per pixel.
        scale = 1.0 / (self.divisor * np.asarray(self.std, np.float32))
        shift = -np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return x * scale.astype(np.float32).reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)

    def _resized(self, x: jax.Array) -> jax.Array:
        count, height, width, channels = x.shape
        if self.resize is None or min(height, width) == self.resize:
            return x
        short = min(height, width)
        sides = (self.resize * height // short, self.resize * width // short)
        method = {"bilinear": "linear", "bicubic": "cubic"}[self.filter]
        x = jax.image.resize(x, (count, *sides, channels), method, antialias=True)
        return jnp.clip(jnp.round(x), 0, 255)  # a cubic filter overshoots at edges

    def _cropped(self, x: jax.Array) -> jax.Array:
        if self.crop is None:
            return x
        height, width = x.shape[1:3]
        if min(height, width) < self.crop:
            raise ModelError("images.shape", x.shape, f"at least {self.crop} pixels a side, what is cropped")
        top, left = (round((side - self.crop) / 2) for side in (height, width))  # torchvision's middle
        return x[:, top : top + self.crop, left : left + self.crop]

    def described(self) -> dict[str, Any]:
        """As JSON-like data, for whoever reads a file without this package; what is not done is left out."""
        done = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        resized = {"resize": self.resize, "crop": self.crop, "filter": self.filter if self.resize else None}
        plain = {name: value for name, value in done.items() if name not in resized}
        return plain | {name: value for name, value in resized.items() if value is not None}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Preprocess:
        """Undo :meth:`described`."""
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in described.items()}
        return cls(**given)


_IMAGENET = Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CROPPED = dataclasses.replace(_IMAGENET, resize=256, crop=224, filter="bicubic")

PREPROCESSES: Mapping[str, Preprocess] = {
    "imagenet": _IMAGENET,
    "caffe": Preprocess(mean=(103.939, 116.779, 123.68), std=(1.0, 1.0, 1.0), divisor=1.0, reverse=True),
    "half": Preprocess(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    "deit": _CROPPED,
    "dino": _CROPPED,
}
"""Preprocessing by name. ``imagenet``: torchvision's numbers, images as they are; ``caffe``: BGR, means alone;
``half``: -1 to 1, as augreg and TensorFlow have it; ``deit`` and ``dino``: what both papers' own code evaluates with,
``imagenet`` behind a bicubic resize to 256 pixels and the middle 224."""


def load_preprocess(source: str | Path) -> Preprocess:
    """Preprocessing by one of :data:`PREPROCESSES`' names, or as a ``preprocessor_config.json`` of Hugging Face says.

    Args:
        source: a name, a file, or ``hf://owner/repository`` (or ``.../file``), which is downloaded once.

    Raises:
        ModelError: neither, or a configuration that asks for something else. WeightsError: what cannot be downloaded.
    """
    if str(source) in PREPROCESSES:
        return PREPROCESSES[str(source)]
    path = downloaded(str(source), "preprocessor_config.json") if str(source).startswith(HUB) else as_path(source)
    allowed = f"one of {', '.join(PREPROCESSES)}, a preprocessor_config.json or hf://owner/repository"
    if not path.is_file():
        raise ModelError("preprocess", str(source), allowed)
    try:
        return _configured(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError("preprocess", str(source), f"{allowed} ({error or type(error).__name__})") from error


def _configured(config: Mapping[str, Any]) -> Preprocess:
    """What a ``preprocessor_config.json`` says; two equal sides are the shorter one, the same for square images."""
    normalised = config.get("do_normalize", True)
    mean, std = (tuple(map(float, config[name])) for name in ("image_mean", "image_std"))
    scaled = config.get("do_rescale", True)
    chosen: dict[str, Any] = {"divisor": 1 / config.get("rescale_factor", 1 / 255) if scaled else 1.0}
    chosen["divisor"] = round(chosen["divisor"], 6)  # 1 / 0.00392156862745098 is not quite 255
    if config.get("do_resize", True) and "size" in config:
        chosen |= {"resize": _side(config["size"]), "filter": _PILLOW[config.get("resample", 2)]}
    if config.get("do_center_crop", False):
        chosen["crop"] = _side(config["crop_size"])
    return Preprocess(mean, std, **chosen) if normalised else Preprocess((0.0,) * 3, (1.0,) * 3, **chosen)


def _side(size: Any) -> int:
    """Pixels of the shorter side; older files write a number."""
    if isinstance(size, Mapping):
        found = {size[name] for name in ("shortest_edge", "height", "width") if name in size}
        if len(found) != 1:
            raise ValueError(f"size {dict(size)}: one number of pixels")
        size = found.pop()
    return int(size)
