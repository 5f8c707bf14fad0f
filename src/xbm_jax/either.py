"""NumPy for numbers that are known, JAX for those that are traced: a cost is there at once, with nothing compiled."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["added_by", "known", "most_by", "on_host", "total", "xp_of"]


def xp_of(*values: Any) -> ModuleType:
    """``jax.numpy`` if any of the arrays is JAX's, else ``numpy``."""
    return jnp if any(isinstance(value, jax.Array) for value in values) else np


def known(tree: Any) -> bool:
    """Whether no number of a tree is traced."""
    return not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree))


def on_host(tree: Any) -> Any:
    """A tree with NumPy's arrays where none of its numbers is traced; else as it is."""
    if not known(tree):
        return tree
    return jax.tree.map(lambda leaf: np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def added_by(values: Any, ids: Any, count: int) -> Any:
    """Values added up by the number that each of them carries, [count]."""
    if xp_of(values, ids) is np:
        values = np.broadcast_to(values, np.shape(ids))
        if np.any(ids[1:] < ids[:-1]):
            return np.bincount(ids, weights=values, minlength=count)
        # In order, as columns are: a fifth of the time.
        ends = np.searchsorted(ids, np.arange(count + 1))
        found = np.flatnonzero(ends[1:] > ends[:-1])
        sums = np.zeros(count)
        sums[found] = np.add.reduceat(values, ends[found], dtype=np.float64)
        return sums
    return jax.ops.segment_sum(jnp.asarray(values, jnp.float32), jnp.asarray(ids), count)


def most_by(values: Any, ids: Any, count: int) -> Any:
    """The largest by number, [count]; zero where there is none."""
    if xp_of(values, ids) is np:
        most = np.zeros(count, np.asarray(values).dtype)
        np.maximum.at(most, ids, values)
        return most
    return jnp.maximum(jax.ops.segment_max(jnp.asarray(values), jnp.asarray(ids), count), 0)


def total(parts: Mapping[str, Any]) -> Any:
    """Everything that named arrays hold, added up; zero where there is none."""
    return sum((xp_of(part).sum(part) for part in parts.values()), start=np.float32(0.0))
