"""NumPy's rules of promotion for the package's own arithmetic, whatever rules a user sets for theirs.

JAX can be told to refuse operands of different ranks (``jax_numpy_rank_promotion="raise"``) or dtypes
(``jax_numpy_dtype_promotion="strict"``), to find mistakes in a user's code. Ours divides a whole kernel by one scale a
column, and Optax counts steps in integers and multiplies them with floats: what a user calls works by NumPy's rules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

__all__ = ["numpy_promotion"]

P = ParamSpec("P")
R = TypeVar("R")


def numpy_promotion(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` under NumPy's rules, traced or not; for what users call, and for what JAX calls back later."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        now = jax.config.values
        if now["jax_numpy_rank_promotion"] == "allow" and now["jax_numpy_dtype_promotion"] == "standard":
            return function(*args, **kwargs)  # a setting that is set again, to what it is, makes JAX compile again
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return function(*args, **kwargs)

    return called
