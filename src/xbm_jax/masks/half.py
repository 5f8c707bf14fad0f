"""Numbers that a task keeps in half precision: learned as real numbers, stored as the 16 bits of a float16."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.quantise import straight_through
from xbm_jax.masks.rules import is_real

__all__ = ["half_codes", "half_numbers"]


def half_codes(values: jax.Array) -> jax.Array:
    """The 16 bits of each number in half precision; codes pass unchanged."""
    return jax.lax.bitcast_convert_type(values.astype(jnp.float16), jnp.uint16) if is_real(values) else values


def half_numbers(values: jax.Array, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Numbers as they are stored, with the gradient of the unrounded ones."""
    hard = jax.lax.bitcast_convert_type(half_codes(values), jnp.float16).astype(dtype)
    return straight_through(hard, values) if is_real(values) else hard
