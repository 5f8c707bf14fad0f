"""Gains by line, in values: what gates make of the currents of a differential pair, before its one converter.

    a+ I+ - a- I-  =  a+ I + (a+ - a-) I-,           I = I+ - I-
    a+^2 V+ + a-^2 V-  =  a+^2 V + (a-^2 - a+^2) V-,   V = V+ + V-

Of sums as of the weights that they come from. With equal gains the second term is exactly zero: a read by line is then
the read by column.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.writing.lines import Lines

__all__ = ["LineGains", "gated", "gated_variance", "root"]


class LineGains(NamedTuple):
    """Gains by line of a read.

    Attributes:
        gain: [T, 2, N], of the positive and of the negative lines.
        negative: the negative lines, which are gated before the converter; ``None`` where each line has its own.
    """

    gain: jax.Array
    negative: Lines | None


def gated(pair: jax.Array, negative: jax.Array, gain: jax.Array) -> jax.Array:
    """``a+ pair + (a+ - a-) negative``; ``gain`` [2, ...], each of its two as ``pair`` or broadcast to it."""
    return pair * gain[0] + negative * (gain[0] - gain[1])


def gated_variance(pair: jax.Array, negative: jax.Array, gain: jax.Array) -> jax.Array:
    """``a+^2 pair + (a-^2 - a+^2) negative``, and never below zero by a rounding."""
    squares = gain**2
    return jnp.maximum(pair * squares[0] + negative * (squares[1] - squares[0]), 0.0)


@jax.custom_jvp
def root(variance: jax.Array) -> jax.Array:
    """The square root, with no slope at zero, where a column is masked or nothing is read."""
    return jnp.sqrt(variance)


@root.defjvp
def _root_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    deviation = jnp.sqrt(primals[0])
    above = deviation > 0.0
    return deviation, jnp.where(above, tangents[0] / (2.0 * jnp.where(above, deviation, 1.0)), 0.0)
