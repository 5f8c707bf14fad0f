"""Other libraries' names and layouts of pretrained arrays, brought to ours by tables.

A table has a row per kind of layer: a pattern of the other library's layer name and our path. The last part of a name
says what the array is: ``weight`` is a kernel in PyTorch's layout (OIHW, [out, in]) or, with one axis, a norm's scale;
``kernel`` a kernel in ours (HWIO, [in, out]). The tables stand in :mod:`xbm_jax.models.weights.name_tables`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

__all__ = ["Row", "Table", "array_fault", "flattened", "rename"]

_LEAVES = {"running_mean": "mean", "running_var": "var", "weight": "weight", "bias": "bias"}
_OURS = ("kernel", "scale", "bias", "mean", "var", "embedding")
_LEAVES |= {name: name for name in _OURS}
_WRAPPERS = ("module.", "_orig_mod.", "model.", "ema.", "net.", "ema_model.")
"""What wrappers of a module (data parallel, compiled, averaged, a training framework's) put before all names."""
_COLLECTIONS = {"params", "batch_stats"}
_COUNTERS = ("num_batches_tracked", "n_averaged")
_LEAF = re.compile(rf"(.*?)[._]({'|'.join(_LEAVES)})")


@dataclass(frozen=True)
class Row:
    r"""One kind of layer in a table.

    Attributes:
        theirs: regular expression of the whole layer name, parts joined by ``.`` (a ``/`` in a name counts as one).
        ours: our path; ``\1`` stands for the pattern's first group. ``None``: arrays that ours has no use for.
        flattened: ``(C, H, W)`` whose flattening, in this order, is a dense kernel's input; ours is ``(H, W, C)``.
        dense: the other library's convolution covers its whole input, so it is a dense layer of ours.
        part: ``(i, n)``: the kernel is the i-th of n that stand side by side in ours.
        embedding: a table of vectors, [entries, width] in both.
    """

    theirs: str
    ours: str | None
    flattened: tuple[int, int, int] | None = None
    dense: bool = False
    part: tuple[int, int] | None = None
    embedding: bool = False

    def kernel(self, weight: np.ndarray) -> np.ndarray:
        """PyTorch's layout to ours."""
        if self.flattened is not None and weight.ndim == 2:
            weight = weight.reshape(len(weight), *self.flattened)
        if weight.ndim == 4:
            weight = weight.transpose(2, 3, 1, 0)
            return weight.reshape(-1, weight.shape[-1]) if self.dense or self.flattened is not None else weight
        return weight.T


Table = Sequence[Row]


def flattened(weights: Mapping[Any, Any]) -> dict[str, Any]:
    """Arrays by one name each: nested mappings and tuples of names are joined by ``/``.

    Flax's collections ``params`` and ``batch_stats`` are laid side by side.
    """
    if weights and weights.keys() <= _COLLECTIONS and all(isinstance(part, Mapping) for part in weights.values()):
        return {name: array for part in weights.values() for name, array in flattened(part).items()}
    flat: dict[str, Any] = {}
    for key, value in weights.items():
        name = "/".join(map(str, key)) if isinstance(key, tuple) else str(key)
        if isinstance(value, Mapping):
            flat |= {f"{name}/{below}": array for below, array in flattened(value).items()}
        else:
            flat[name] = value
    return flat


def array_fault(path: str, array: Any) -> str | None:
    """What forbids an array as pretrained weights, or None: no real floats, NaN or infinity, a variance below zero."""
    array = np.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return f"is {array.dtype}, no real floating-point numbers"
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        return "holds NaN or infinity"
    return "holds variances below zero" if path.endswith("/var") and (array < 0).any() else None


def rename(arrays: Mapping[str, np.ndarray], tables: Mapping[str, Table]) -> dict[str, np.ndarray]:
    """Arrays by our paths and in our layouts, by the table that knows most of their names.

    Names that no row matches stay as they are, so that the check against the backbone lists them; arrays that have our
    paths already thus pass unchanged (``layer1_0.conv1.kernel`` is one too). Prefixes that wrappers put before all
    names (``module.``, ``_orig_mod.``, ``model.``, ``ema.``, also several) are dropped, counters too.
    """
    named = {name: np.asarray(a) for name, a in arrays.items() if not name.endswith(_COUNTERS)}
    dotted = _unwrapped(named)
    candidates = [{name: _place(dotted[name], table) for name in named} for table in tables.values()]
    best = max(candidates, key=lambda found: sum(place is not None for place in found.values()), default={})
    renamed: dict[str, np.ndarray] = {}
    parts: dict[str, dict[tuple[int, int], np.ndarray]] = {}
    for name, array in named.items():
        place = best.get(name)
        if place is None:
            renamed[_own_path(dotted[name]) or name] = array
            continue
        path, leaf, row = place
        if path is None:
            continue
        array, leaf = _laid_out(row, leaf, array)
        full = f"{path}/{leaf}" if leaf else path
        if row.part is not None:
            parts.setdefault(full, {})[row.part] = array
        elif full in renamed:
            renamed[name] = array  # a second array of that path: listed as unknown
        else:
            renamed[full] = array
    for full, given in parts.items():
        if len(given) == next(iter(given))[1]:
            renamed[full] = np.concatenate([given[part] for part in sorted(given)], axis=-1)
    return renamed


def _laid_out(row: Row, leaf: str, array: np.ndarray) -> tuple[np.ndarray, str]:
    """An array in our layout, and what it is there."""
    if leaf != "weight":
        return array, leaf
    if row.embedding:
        return array, "embedding"
    return (row.kernel(array), "kernel") if array.ndim > 1 else (array, "scale")


def _unwrapped(names: Mapping[str, Any]) -> dict[str, str]:
    """Every name with ``.`` between its parts and without what wrappers put before all of them."""
    dotted = {name: name.replace("/", ".") for name in names}
    while True:
        shared = next((w for w in _WRAPPERS if dotted and all(n.startswith(w) for n in dotted.values())), None)
        if shared is None:
            return dotted
        dotted = {name: short.removeprefix(shared) for name, short in dotted.items()}


def _own_path(dotted: str) -> str | None:
    """The path that a name is if it ends as ours do."""
    return dotted.replace(".", "/") if dotted.rpartition(".")[2] in _OURS else None


def _place(dotted: str, table: Table) -> tuple[str | None, str, Row] | None:
    """Our path (none: left out), the leaf and the row of one of their names; an array of no layer has an empty leaf."""
    found = _LEAF.fullmatch(dotted)
    layer, leaf = (found[1], _LEAVES[found[2]]) if found else (dotted, "")
    for row in table:
        match = re.fullmatch(row.theirs, layer)
        if match:
            return None if row.ours is None else match.expand(row.ours), leaf, row
    return None
