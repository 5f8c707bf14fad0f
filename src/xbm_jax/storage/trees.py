"""Pytrees as named arrays, and back into a tree of their form; and the digest of one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.errors import BankError

__all__ = ["digest", "from_named", "named"]


def named(tree: Any) -> dict[str, Any]:
    """Leaves by path, ``train/trained/masks/conv1``; a PRNG key is its words, and its path ends in ``:`` and its kind.

    Raises:
        BankError: two leaves of one path, as of a key ``"a/b"`` beside ``"b"`` in ``"a"``.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name, value = _named(path, leaf)
        if name in found:
            raise BankError("tree", name, "leaves of different paths")
        found[name] = value
    return found


def from_named(arrays: Mapping[str, Any], like: Any) -> Any:
    """A tree of the structure of ``like`` with these arrays: NumPy's where its leaves are, else JAX's.

    Raises:
        BankError: an array that is missing, one too many, or of another shape or dtype than the leaf of ``like``.
    """
    wanted = named(like)
    amiss = sorted(wanted.keys() ^ arrays.keys())
    amiss += [name for name in wanted.keys() & arrays.keys() if not _alike(arrays[name], wanted[name])]
    if amiss:
        raise BankError("arrays", amiss, "the names, shapes and dtypes of what is to be filled with them")
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _as(leaf, arrays[_named(path, leaf)[0]]), like)


def digest(tree: Any) -> str:
    """SHA-256 of names, shapes, dtypes and bits of all leaves; of a leaf that has a ``digest`` of its own, that one."""
    found = hashlib.sha256()
    for name, leaf in named(tree).items():
        if isinstance(known := getattr(leaf, "digest", None), str):  # it is on disk
            found.update(f"{name} {known}\n".encode())
            continue
        array = np.ascontiguousarray(leaf)
        found.update(f"{name} {np.shape(leaf)} {array.dtype}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _named(path: Any, leaf: Any) -> tuple[str, Any]:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return f"{name}:{jax.random.key_impl(leaf)}", jax.random.key_data(leaf)
    return name, leaf


def _alike(one: Any, other: Any) -> bool:
    return np.shape(one) == np.shape(other) and one.dtype == other.dtype


def _as(leaf: Any, array: Any) -> Any:
    """``array`` as the leaf is: a NumPy array or scalar, a key, or an array of JAX's."""
    if isinstance(leaf, np.ndarray | np.generic):
        return np.asarray(array)[()] if isinstance(leaf, np.generic) else np.array(array)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array)
