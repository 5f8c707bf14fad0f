"""Operations that a CPU runs faster one after another than batched; elsewhere the batched form is the faster one.

A convolution whose kernels differ from one task of a ``vmap`` to the next becomes one grouped convolution. XLA's CPU
backend runs that many times slower than the convolutions one by one, and slower still inside a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.primitives.platforms import by_platform

__all__ = ["one_by_one"]

_AT_MOST = 16
"""More than so many side by side take too long to compile; they are batched after all."""


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, which ``vmap`` calls once for each element, side by side in one program, if that is for a CPU.

    Where only one argument is batched, JAX's own batching makes one larger operation of all elements, and stays.

    Args:
        function: of arrays, and linear in each of them.
    """

    @jax.custom_vjp
    def differentiable(*args: Any) -> Any:
        return called(*args)

    def forward(*args: Any) -> Any:
        return differentiable(*args), args  # itself, so that gradients of gradients exist

    def backward(args: Any, cotangents: Any) -> Any:
        # One by one here too, and each apart, so that a gradient which nobody takes costs nothing.
        def gradient(i: int) -> Any:
            shape = jax.ShapeDtypeStruct(args[i].shape, args[i].dtype)
            return one_by_one(partial(_transposed, function, i, shape))(cotangents, *args[:i], *args[i + 1 :])

        return tuple(gradient(i) for i in range(len(args)))

    # custom_vmap alone has no reverse mode.
    called = jax.custom_batching.custom_vmap(function)
    called.def_vmap(partial(_each, function, differentiable))
    differentiable.defvjp(forward, backward)
    return differentiable


def _each(
    function: Callable[..., Any],
    again: Callable[..., Any],
    size: int,
    batched: Sequence[Any],
    *args: Any,
) -> Any:
    """The rule of ``vmap``."""
    as_one = jax.vmap(function, in_axes=[0 if is_batched else None for is_batched in batched])

    def side_by_side(*args: Any) -> Any:
        elements = [
            again(*(a[i] if is_batched else a for a, is_batched in zip(args, batched, strict=True)))
            for i in range(size)
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *elements)

    few = sum(batched) > 1 and size <= _AT_MOST
    out = by_platform(side_by_side, as_one, *args) if few else as_one(*args)
    return out, jax.tree.map(lambda _: True, out)


def _transposed(
    function: Callable[..., Any], position: int, shape: jax.ShapeDtypeStruct, cotangents: Any, *others: Any
) -> Any:
    """The cotangent of one of ``function``'s arguments; being linear in it, ``function`` needs its shape alone."""

    def of_one(value: Any) -> Any:
        return function(*others[:position], value, *others[position:])

    return jax.linear_transpose(of_one, shape)(cotangents)[0]
