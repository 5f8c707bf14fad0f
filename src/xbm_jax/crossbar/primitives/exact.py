"""Products of input codes with cells, on accelerators by their matrix units and to float32's digits all the same.

A converter turns a small error of what it sees into a wrong code, and the matrix units of GPUs and TPUs multiply
numbers of few digits: TF32 keeps 11 bits, bfloat16 8. Codes of at most eight bits lose nothing there, and neither do
cells that hold integers of eight bits; their products add up in float32. Real conductances are cut into three numbers
of eight bits each, which hold all that float32 does::

    E = E1 + E2 + E3,    E1 = bf16(E),  E2 = bf16(E - E1),  E3 = E - E1 - E2
    x @ E = (x @ E3 + x @ E2) + x @ E1
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jax import lax

from xbm_jax.promotion import numpy_promotion

__all__ = ["PARTS", "Linear", "bfloat16_parts", "few_digits_product"]

PARTS = 3
"""Numbers of eight bits that hold all of a float32's 24."""

Linear = Callable[[jax.Array, jax.Array, lax.Precision], jax.Array]
"""``(x, kernel, precision)`` to their product, bilinear."""


def bfloat16_parts(values: jax.Array, count: int = PARTS) -> list[jax.Array]:
    """``values`` as a sum of ``count`` float32 arrays that bfloat16 holds exactly, the largest first.

    The sum is exact with three, but for digits below float32's smallest normal number.
    """
    found, rest = [], values
    for _ in range(count):
        # No conversion there and back, which XLA may take out again.
        found.append(lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - found[-1]
    return found


@partial(jax.custom_jvp, nondiff_argnums=(0, 3))
def few_digits_product(linear: Linear, x: jax.Array, kernel: jax.Array, parts: int) -> jax.Array:
    """A product whose operands have few digits, float32; its gradients have all.

    Args:
        linear: the product.
        x: what bfloat16 holds exactly, float32.
        kernel: float32.
        parts: 1 where bfloat16 holds ``kernel`` exactly, too, else :data:`PARTS`.
    """
    made = [linear(x, part, lax.Precision.DEFAULT) for part in reversed(bfloat16_parts(kernel, parts))]
    return sum(made[1:], start=made[0])


@few_digits_product.defjvp
@numpy_promotion
def _few_digits_jvp(linear: Linear, parts: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (dx, dkernel), highest = primals, tangents, lax.Precision.HIGHEST
    return few_digits_product(linear, x, kernel, parts), linear(dx, kernel, highest) + linear(x, dkernel, highest)
