"""Operations that a CPU runs faster one after another than batched.

A convolution whose kernels differ from one task of a ``vmap`` to the next becomes one grouped convolution. XLA's CPU
backend runs that many times slower than the convolutions one by one, and slower still inside a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["one_by_one"]

_AT_MOST = 16
"""More than so many side by side take too long to compile; they are batched after all."""


def one_by_one(function: Callable[..., Any], shared: int | None = None) -> Callable[..., Any]:
    """``function``, which ``vmap`` calls once for each element, side by side in one program.

    Args:
        function: of arrays, and linear in each of them.
        shared: the position of an argument that, where it is not batched, makes JAX's own batching the better one.
    """

    @jax.custom_vjp
    def differentiable(*args: Any) -> Any:
        return called(*args)

    def forward(*args: Any) -> Any:
        return differentiable(*args), args  # itself, so that gradients of gradients exist

    def backward(args: Any, cotangents: Any) -> Any:
        # One by one here too, so that a gradient which nobody takes costs nothing.
        return tuple(one_by_one(partial(_transposed, function, i))(cotangents, *args) for i in range(len(args)))

    # custom_vmap alone has no reverse mode.
    called = jax.custom_batching.custom_vmap(function)
    called.def_vmap(partial(_each, function, differentiable, shared))
    differentiable.defvjp(forward, backward)
    return differentiable


def _each(
    function: Callable[..., Any],
    again: Callable[..., Any],
    shared: int | None,
    size: int,
    batched: Sequence[Any],
    *args: Any,
) -> Any:
    """The rule of ``vmap``."""
    if size > _AT_MOST or (shared is not None and not batched[shared]):
        out = jax.vmap(function, in_axes=[0 if is_batched else None for is_batched in batched])(*args)
    else:
        outs = [
            again(*(a[i] if is_batched else a for a, is_batched in zip(args, batched, strict=True)))
            for i in range(size)
        ]
        out = jax.tree.map(lambda *leaves: jnp.stack(leaves), *outs)
    return out, jax.tree.map(lambda _: True, out)


def _transposed(function: Callable[..., Any], position: int, cotangents: Any, *args: Any) -> Any:
    """The cotangent of one of ``function``'s arguments."""

    def of_one(argument: Any) -> Any:
        return function(*args[:position], argument, *args[position + 1 :])

    return jax.linear_transpose(of_one, args[position])(cotangents)[0]
