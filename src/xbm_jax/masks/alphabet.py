"""Which values a mask may take, and the integer codes that are stored for them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.validate import check_number

__all__ = ["Alphabet", "Binary"]


@dataclass(frozen=True)
class Alphabet:
    """A finite set of mask values; ``encode`` decides, ``decode`` looks up.

    ``bits``: width of one stored code. ``threshold``: the logit at which the decision turns.
    """

    threshold: float = 5e-3

    def __post_init__(self) -> None:
        check_number(f"{type(self).__name__}.threshold", self.threshold)

    @property
    def bits(self) -> int:
        """Bits per stored mask value."""
        raise TypeError(f"{type(self).__name__} does not give its code width")

    def encode(self, logits: jax.Array) -> jax.Array:
        """Mask logits to codes, uint8 of the same shape."""
        raise TypeError(f"{type(self).__name__} cannot encode {logits.shape}")

    def decode(self, codes: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        """Codes to mask values."""
        raise TypeError(f"{type(self).__name__} cannot decode {codes.shape} to {dtype}")


@dataclass(frozen=True)
class Binary(Alphabet):
    """``b = 1[m > threshold]``: the column (or weight) counts, or does not. One bit."""

    @property
    def bits(self) -> int:
        return 1

    def encode(self, logits: jax.Array) -> jax.Array:
        return (logits > self.threshold).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        return codes.astype(dtype)
