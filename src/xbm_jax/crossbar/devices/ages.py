"""Time since programming, as the laws of devices take it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from xbm_jax.crossbar.validate import check_number
from xbm_jax.errors import SpecError

__all__ = ["LONGEST_SECONDS", "check_age", "check_time"]

LONGEST_SECONDS = 1e18
"""Time beyond which the laws of devices would leave float32: twice the age of the universe."""


def check_time(t_seconds: Any, dtype: Any) -> jax.Array:
    """``t_seconds`` as an array of ``dtype``; raises SpecError where it is no time since programming.

    A time that is traced has no value yet: below zero it counts as zero, and NaN stays NaN.
    """
    if isinstance(t_seconds, Tracer):
        return jnp.maximum(t_seconds, 0).astype(dtype)
    if not isinstance(t_seconds, (jax.Array, np.ndarray)):
        return jnp.asarray(check_number("t_seconds", t_seconds, low=0.0, high=LONGEST_SECONDS), dtype)
    times = np.asarray(t_seconds)
    if not np.issubdtype(times.dtype, np.number) or not np.all((times >= 0.0) & (times <= LONGEST_SECONDS)):
        raise SpecError("t_seconds", t_seconds, f"a finite number at least 0 and at most {LONGEST_SECONDS:g}")
    return jnp.asarray(t_seconds, dtype)


def check_age(t_seconds: Any) -> jax.Array:
    """:func:`check_time` for the one age of a whole chip, a float32 scalar."""
    if np.ndim(t_seconds) != 0:
        raise SpecError("t_seconds", t_seconds, "one number: all cells of a chip are as old")
    return check_time(t_seconds, jnp.float32)
