"""Which values a mask may take, and the integer codes that are stored for them."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.validate import keep_int, keep_number
from xbm_jax.errors import SpecError

__all__ = ["Alphabet", "Binary", "Shift", "Soft", "Ternary", "code_dtype"]


@dataclass(frozen=True)
class Alphabet:
    """A finite set of mask values; ``encode`` decides, ``decode`` looks up.

    ``bits``: width of one stored code. ``threshold``: the logit at which the decision turns.
    """

    threshold: float = 5e-3

    def __post_init__(self) -> None:
        keep_number(self, "threshold")

    @property
    def bits(self) -> int:
        """Bits per stored mask value."""
        raise TypeError(f"{type(self).__name__} does not give its code width")

    def encode(self, logits: jax.Array) -> jax.Array:
        """One layer's mask logits to codes, unsigned integers of the same shape."""
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


@dataclass(frozen=True)
class Ternary(Alphabet):
    """``1[m > threshold] - 1[m < 0]``: keep, drop or negate a weight (Mallya 2018, official code). Two bits."""

    @property
    def bits(self) -> int:
        return 2

    def encode(self, logits: jax.Array) -> jax.Array:
        return jnp.where(logits < 0, 2, logits > self.threshold).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        return jnp.array([0, 1, -1, 0], dtype)[codes]


@dataclass(frozen=True)
class Soft(Alphabet):
    """KSM's soft mask: on, or a grey value of at most a half (Yang 2021, official code).

    b = 1[m > threshold];   a = m (1 - b);   M = b + 0.5 (a - min a) / (max a - min a) where b = 0 and a != 0

    Minimum and maximum run over the whole layer, the zeros of the «on» entries included.

    Args:
        width: bits of a code, 2 to 32. The highest code is «on», the others are the grey values, evenly spaced; the
            published code keeps them in floating point. A code can be no wider than the logits' own precision: up
            to 24 bits are learned in float32, more in float64 alone.
    """

    width: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_int(self, "width", 2, 32)

    @property
    def bits(self) -> int:
        return self.width

    @property
    def _greys(self) -> int:
        return 2**self.width - 2

    def encode(self, logits: jax.Array) -> jax.Array:
        precision = jnp.finfo(logits.dtype).nmant + 1
        if self.width > precision:  # a grey value rounded up would be a code that has no place in so many bits
            raise SpecError("Soft.width", self.width, f"at most {precision}, the precision of {logits.dtype} logits")
        on = logits > self.threshold
        a = jnp.where(on, 0, logits)
        low, top = jnp.min(a), jnp.max(a)
        # A compiled quotient of equals may fall short of 1, by a code where codes are wide.
        share = jnp.where(a == top, 1, (a - low) / jnp.where(top == low, 1, top - low))
        grey = jnp.where((a == 0) | (top == low), 0, share)
        code = jnp.round(grey * float(self._greys)).astype(code_dtype(self.width))
        return jnp.where(on, jnp.asarray(self._greys + 1, code.dtype), code)

    def decode(self, codes: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        on = codes > jnp.asarray(self._greys, code_dtype(self.width))
        return jnp.where(on, 1, 0.5 * codes.astype(dtype) / float(self._greys)).astype(dtype)


@dataclass(frozen=True)
class Shift(Alphabet):
    """Zero and signed powers of two: a digital shift instead of a multiplication (XMA, Zhang 2022).

    ``0`` where ``|m| <= min(threshold, smallest)``, else ``sign(m) 2**k`` with ``2**k`` nearest to ``|m|`` among the
    ``2**(width - 1) - 1`` powers from ``2**top`` downwards; ``smallest`` is the last of them.

    Args:
        threshold: magnitude up to which a gain is dropped, at most; no value may be out of reach.
        width: bits of a code, 2 to 8.
        top: the largest exponent; 1 must be among the values, so that a task can start from the backbone.
    """

    threshold: float = 0.25
    width: int = 3
    top: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_number(self, "threshold", low=0.0)
        keep_int(self, "width", 2, 8)
        keep_int(self, "top", 0, self.powers - 1)

    @property
    def bits(self) -> int:
        return self.width

    @property
    def powers(self) -> int:
        """How many magnitudes there are beside zero."""
        return 2 ** (self.width - 1) - 1

    @property
    def dropped_up_to(self) -> float:
        """The magnitude up to which a gain is zero."""
        return min(self.threshold, 2.0 ** (self.top - self.powers + 1))

    def encode(self, logits: jax.Array) -> jax.Array:
        size = jnp.abs(logits)
        # One step down for each power whose middle to the next smaller one, 0.75 times itself, is not reached.
        smaller = [size < 0.75 * 2.0 ** (self.top - k) for k in range(self.powers - 1)]
        step = sum((s.astype(jnp.uint8) for s in smaller), start=jnp.ones(size.shape, jnp.uint8))
        signed = jnp.where(logits < 0, step + self.powers, step)
        return jnp.where(size > self.dropped_up_to, signed, 0).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
        sizes = [2.0 ** (self.top - k) for k in range(self.powers)]
        return jnp.array([0.0, *sizes, *(-s for s in sizes), 0.0], dtype)[codes]


def code_dtype(bits: int) -> jax.typing.DTypeLike:
    """The narrowest unsigned integers that hold codes of so many bits."""
    return jnp.uint8 if bits <= 8 else jnp.uint16 if bits <= 16 else jnp.uint32
