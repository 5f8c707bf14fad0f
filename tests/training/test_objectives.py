"""Several labels, numbers, a label for each token: learned, stored and served on data made here."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import xbm_jax as xbm
from cost import slow_but
from xbm_jax.tasks import MultiLabel, Objective, Regression, TokenClassification

TOKENS, WIDTH, WORDS = 6, 16, 8


class Reader(nnx.Module):
    """Token ids and a mask to features of each token; the head answers each of them, or their mean."""

    def __init__(self, each: bool, rngs: nnx.Rngs) -> None:
        self.each = each
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.attend = nnx.MultiHeadAttention(2, WIDTH, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.inner, self.head = nnx.Linear(WIDTH, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 2, rngs=rngs)

    def __call__(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
        x = self.embed(ids)
        x = self.norm(x + self.attend(x, mask=mask[:, None, None, :]))
        x = nnx.relu(self.inner(x))
        return self.head(x if self.each else jnp.where(mask[..., None], x, 0).sum(1) / mask.sum(1, keepdims=True))


def examples(count: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    length = rng.integers(2, TOKENS + 1, count)
    ids = rng.integers(0, WORDS, (count, TOKENS)).astype(np.int32)
    return {"ids": ids, "mask": np.arange(TOKENS) < length[:, None]}


@cache
def chip(each: bool) -> xbm.Chip:
    spec = xbm.CrossbarSpec(rows=8, adc=xbm.Adc(bits=None))
    one = jax.tree.map(lambda a: a[0], examples(1, 0))
    made = xbm.program(Reader(each, nnx.Rngs(0)), spec, jax.random.key(0), inputs=one)
    return xbm.calibrate(made, examples(64, 2))


def labels_of(x: dict[str, np.ndarray]) -> np.ndarray:
    """For each token whether its word is of the upper half, -1 behind the text."""
    return np.where(x["mask"], x["ids"] // (WORDS // 2), -1)


def several(x: dict[str, np.ndarray]) -> np.ndarray:
    """Which of three words occur."""
    return np.stack([((x["ids"] == word) & x["mask"]).any(1) for word in range(3)], 1).astype(np.int64)


def number(x: dict[str, np.ndarray]) -> np.ndarray:
    """The share of words of the upper half."""
    return ((x["ids"] >= WORDS // 2) & x["mask"]).sum(1) / x["mask"].sum(1)


TASKS: dict[str, tuple[Objective, bool, Any, float]] = {
    "labels": (MultiLabel(), False, several, 0.75),
    "a number": (Regression(), False, number, -0.03),
    "tokens": (TokenClassification(), True, labels_of, 0.9),
}
"""With the least score: chance gives 0.65, -0.08 (the targets' variance) and 0.5."""


@pytest.mark.parametrize("name", slow_but(["tokens"], list(TASKS)))
def test_an_objective_is_learned_stored_and_served(name: str, tmp_path: Path) -> None:
    objective, each, targets, least = TASKS[name]
    train, test = examples(192, 3), examples(64, 4)
    data = xbm.Dataset(name, train, targets(train), test, targets(test), kind="arrays")
    recipe = xbm.Recipe(epochs=30, batch_size=32, objective=objective)
    own = chip(each)
    task = xbm.adapt(own, data, method=xbm.methods.xbm(norms="affine"), key=jax.random.key(1), config=recipe)
    score = xbm.evaluate(own, task, test, data.y_test, objective=objective)
    assert score > least
    outputs = xbm.predict(own, task, test)
    assert outputs.shape == ((64, TOKENS, 2) if each else (64, objective.outputs(data)))
    bank = xbm.MaskBank.create(tmp_path / "bank", own)
    bank.put("one", task)
    bank.put("two", xbm.source_task(own))
    server = xbm.serve(own, bank)
    alone = server.logits(test, "one")
    mixed = server.logits(test, ["one", "two"] * 32)
    top = np.abs(outputs).max()
    np.testing.assert_allclose(alone, outputs, atol=0.02 * top)  # a bank keeps heads in 8 bits
    np.testing.assert_allclose(mixed[::2, ..., : outputs.shape[-1]], alone[::2], atol=1e-4 * top)
    assert server.logits(jax.tree.map(lambda a: a[:0], test), "one").shape[0] == 0


def test_tokens_without_a_label_and_padded_outputs_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    outputs = jnp.asarray(rng.standard_normal((3, TOKENS, 8)), jnp.float32)
    targets = jnp.asarray(labels_of(examples(3, 1)))
    loss = TokenClassification().loss(outputs, targets, 2)
    for i in range(3):
        kept = targets[i] >= 0
        own = optax.softmax_cross_entropy_with_integer_labels(outputs[i, kept, :2], targets[i, kept])
        np.testing.assert_allclose(loss[i], own.mean(), rtol=1e-6)
    grad = jax.grad(lambda o: TokenClassification().loss(o, targets, 2).sum())(outputs)
    assert not np.any(grad[..., 2:]) and not np.any(grad[targets < 0])
    score = TokenClassification().score(outputs, jnp.full((3, TOKENS), -1), 2)
    np.testing.assert_array_equal(score, 0)


def test_several_labels_of_padded_outputs() -> None:
    outputs, targets = jnp.asarray([[2.0, -1.0, 5.0, -5.0]]), jnp.asarray([[1, 1]])
    want = optax.sigmoid_binary_cross_entropy(outputs[:, :2], targets.astype(float)).mean(-1)
    np.testing.assert_allclose(MultiLabel().loss(outputs, targets, 2), want, rtol=1e-6)
    np.testing.assert_array_equal(MultiLabel().score(outputs, targets, 2), [0.5])
    np.testing.assert_array_equal(MultiLabel().predict(outputs[:, :2]), [[True, False]])


@pytest.mark.parametrize(
    ("objective", "targets", "message"),
    [
        (MultiLabel(), np.arange(4), "0 or 1 for each label"),
        (MultiLabel(), np.full((4, 2), 2), "0 or 1 for each label"),
        (TokenClassification(), np.arange(4), r"whole numbers, \[n, tokens\]"),
        (TokenClassification(), np.ones((4, 2)), "whole numbers"),
        (TokenClassification(classes=2), np.full((4, 2), 2), "labels below 2"),
        (TokenClassification(), np.full((4, 2), -1), "at least one token with a label"),
    ],
)
def test_targets_that_an_objective_cannot_take(objective: Objective, targets: np.ndarray, message: str) -> None:
    x = np.zeros((4, 3), np.float32)
    data = xbm.Dataset("bad", x, targets, x, targets, kind="arrays")
    with pytest.raises(xbm.DataError, match=message):
        objective.outputs(data)
