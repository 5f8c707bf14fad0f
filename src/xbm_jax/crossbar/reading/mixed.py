"""Reads of examples that have gains of their own: how ``vmap`` batches a read, so that a mixed batch is one batch.

By itself ``vmap`` makes of a read of one example many small operations side by side, in the order and the pieces that
suit one example. Here the examples become a batch like any other, and the gains [T, N] of each become [T, batch, 1, ..,
N]: they meet the partial sums behind the converters, or the sums of lines before them, and nothing else differs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.reading.sums import Converters
from xbm_jax.crossbar.writing.plans import Plan

__all__ = ["mixed", "of_part"]

_T = TypeVar("_T")
"""What a read gives: arrays that lead with the batch."""


def mixed(plan: Plan, read: Callable[..., _T], alone: Callable[..., _T] | None = None) -> Callable[..., _T]:
    """``read(plan, codes, effective, gain, converters)`` of the last four, with this module's rule for ``vmap``.

    ``alone``: of those four, the form without ``vmap``, where it is another one.
    """
    of_plan = partial(read, plan)
    called = jax.custom_batching.custom_vmap(alone or of_plan)
    called.def_vmap(partial(_batched, plan, of_plan))
    return called


def of_part(part: slice, converters: Converters, gain: jax.Array | None) -> tuple[Converters, jax.Array | None]:
    """Gains of a slice of the batch, where each example has its own."""
    if gain is not None and gain.ndim > 2:
        gain = gain[:, part]
    lines = converters.lines
    if lines is not None and lines.gain.ndim > 3:
        converters = converters._replace(lines=lines._replace(gain=lines.gain[:, :, part]))
    return converters, gain


def _batched(plan: Plan, read: Callable[..., Any], size: int, batched: Any, *args: Any) -> tuple[Any, Any]:
    """The rule: one read where inputs and gains alone differ; else JAX's own, of cells or keys that differ."""
    own_codes, *_ = batched
    if not own_codes or _differ_elsewhere(batched):
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
        found = jax.vmap(read, in_axes=axes)(*args)
        return found, jax.tree.map(lambda _: True, found)
    codes, effective, gain, converters = args
    _, _, own_gain, of_converters = batched
    inner = codes.shape[1:-1] if plan.conv is None else codes.shape[1:2]
    together = codes if plan.conv is None else codes.reshape(-1, *codes.shape[2:])

    def of_examples(gain: jax.Array, axis: int, ones: int) -> jax.Array:
        """Gains [examples, ..., N] with the batch's axes before the last one, the first of them at ``axis``."""
        gain = jnp.moveaxis(gain, 0, axis)
        if plan.conv is not None:
            gain = jnp.repeat(gain, inner[0], axis)
        return gain.reshape(*gain.shape[:-1], *[1] * ones, gain.shape[-1])

    pixels = 2 if plan.conv is not None else len(inner)
    if own_gain:
        gain = of_examples(gain, 1, pixels)
    lines = converters.lines
    if lines is not None and of_converters.lines.gain:
        # Before a converter sums have an axis of conversions, behind it they have none.
        ones = pixels + (lines.negative is not None)
        converters = converters._replace(lines=lines._replace(gain=of_examples(lines.gain, 2, ones)))
    found = read(together, effective, gain, converters)
    if plan.conv is not None:
        found = jax.tree.map(lambda a: a.reshape(size, *inner, *a.shape[1:]), found)
    return found, jax.tree.map(lambda _: True, found)


def _differ_elsewhere(batched: Any) -> bool:
    """Whether cells, converters or keys are batched, too."""
    _, effective, _, converters = batched
    lines = converters.lines
    rest = converters._replace(lines=None if lines is None else lines._replace(gain=False))
    return any(jax.tree.leaves((effective, rest)))
