"""Pytrees as named arrays and back, what tells two apart, and any value as plain JSON."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from xbm_jax.errors import BankError
from xbm_jax.storage.plain import differences, plain
from xbm_jax.storage.trees import digest, from_named, named


def tree(step: int = 3) -> dict[str, Any]:
    params = {"a/b": jnp.arange(3.0), "c": [jnp.zeros((0, 2)), jnp.float16(1)]}
    return {
        "params": params,
        "opt": optax.adam(1e-3).init(params),
        "key": jax.random.key(7),
        "other": jax.random.key(7, impl="rbg"),
        "step": np.int64(step),
        "history": np.full((2, 2), np.nan),
    }


def test_a_tree_comes_back_bit_for_bit_in_kind_too():
    whole = tree()
    arrays = {name: np.asarray(array) for name, array in named(whole).items()}
    assert {"params/a/b", "params/c/0", "key:threefry2x32", "other:rbg", "step", "opt/0/mu/a/b"} <= set(arrays)
    back = from_named(arrays, tree(step=0))
    assert jax.tree.structure(back) == jax.tree.structure(whole)
    assert digest(back) == digest(whole)
    assert type(back["step"]) is np.int64 and type(back["history"]) is np.ndarray
    assert isinstance(back["params"]["a/b"], jax.Array)
    assert jax.random.key_impl(back["other"]) == "rbg"


@pytest.mark.parametrize(
    ("change", "named_there"),
    [
        (lambda a: a.pop("step"), "'step'"),
        (lambda a: a.update(more=np.zeros(1)), "'more'"),
        (lambda a: a.update(step=np.int32(3)), "'step'"),
        (lambda a: a.update({"params/a/b": np.zeros(4, np.float32)}), "'params/a/b'"),
    ],
)
def test_what_does_not_fill_a_tree_is_named(change, named_there):
    arrays = {name: np.asarray(array) for name, array in named(tree()).items()}
    change(arrays)
    with pytest.raises(BankError, match=rf"^arrays = \[{named_there}\]: the names, shapes and dtypes"):
        from_named(arrays, tree())


def test_two_leaves_of_one_path_are_refused():
    with pytest.raises(BankError, match="tree = 'a/b': leaves of different paths"):
        named({"a": {"b": np.zeros(1)}, "a/b": np.zeros(1)})


def test_a_digest_tells_names_shapes_dtypes_and_bits_apart():
    zero = np.zeros(4, np.float32)
    others = [{"b": zero}, {"a": zero.reshape(2, 2)}, {"a": zero.view(np.int32)}, {"a": -zero}, {"a": zero, "b": zero}]
    assert len({digest(t) for t in [{"a": zero}, *others]}) == 6
    on_disk = [SimpleNamespace(digest=text) for text in "xxy"]
    assert digest({"a": on_disk[0]}) == digest({"a": on_disk[1]}) != digest({"a": on_disk[2]})
    assert digest({"a": jnp.asarray(zero)}) == digest({"a": zero}) == digest({"a": np.zeros((4, 2), np.float32)[:, 0]})


@dataclasses.dataclass(frozen=True)
class Setting:
    """One of a user's."""

    rate: float = 1.0


class Opaque:
    """Of no dataclass."""


def test_every_value_is_plain_and_the_same_in_another_process():
    part = functools.partial(plain, Setting())
    assert plain(part) == {"partial": "plain", "args": [{"type": "Setting", "rate": 1.0}], "options": {}}
    assert "0x" not in plain(Opaque()) and plain(float("inf")) == "inf"
    assert plain({1: jnp.arange(2), "f": plain}) == {"1": [0, 1], "f": "plain"}


def test_differences_are_named_by_their_place():
    one = {"a": {"b": [1, 2], "c": 3}, "d": None}
    assert differences(one, one) == []
    other = {"a": {"b": [1, 4], "c": 3}, "e": 1}
    assert differences(one, other) == [("a.b[1]", 2, 4), ("e", None, 1)]
    assert differences([1], [1, 2]) == [("", [1], [1, 2])]
