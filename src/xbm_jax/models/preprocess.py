"""From images to what a network takes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.errors import ModelError

__all__ = ["Preprocess"]


@dataclass(frozen=True)
class Preprocess:
    """From uint8 NHWC images to network inputs: ``(image / divisor - mean) / std``; ``reverse`` turns RGB into BGR."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float = 255.0
    reverse: bool = False

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            raise ModelError("Preprocess.std", self.std, f"one number for each of the {len(self.mean)} means")
        for name, values in (("mean", self.mean), ("std", self.std), ("divisor", (self.divisor,))):
            if not np.isfinite(values).all() or (name != "mean" and 0 in values):
                allowed = "finite numbers" if name == "mean" else "finite numbers other than 0"
                raise ModelError(f"Preprocess.{name}", getattr(self, name), allowed)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = jnp.asarray(images, jnp.float32)
        x = x[..., ::-1] if self.reverse else x
        # One multiply and one add per pixel.
        scale = 1.0 / (self.divisor * np.asarray(self.std, np.float32))
        shift = -np.asarray(self.mean, np.float32) / np.asarray(self.std, np.float32)
        return x * scale.astype(np.float32).reshape(1, 1, 1, -1) + shift.reshape(1, 1, 1, -1)
