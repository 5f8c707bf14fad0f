"""Methods: the table of them, their settings, and one of a user's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from models.tiny import CLASSES, CONVS, NORMS, tiny_chip, tiny_images
from xbm_jax.crossbar import Plan
from xbm_jax.errors import MethodError, SpecError
from xbm_jax.masks import (
    Annealed,
    ArrayChoice,
    Binary,
    Column,
    Granularity,
    Identity,
    Kernel,
    Levels,
    Line,
    LowRank,
    Masked,
    Method,
    Rewritten,
    Shift,
    Sigmoid,
    Soft,
    Ternary,
    Weight,
    methods,
)
from xbm_jax.models import forward, initial_trained

TABLE = [
    ("head_only", None, "frozen", False),
    ("norm_only", None, "full", False),
    ("xbm", Masked(Column(), Binary(0.0), Annealed(), 0.5), "full", False),
    ("xbm_levels", Levels(Masked(Column(), Binary(0.0), Annealed(), 0.05)), "full", False),
    ("xbm_lines", Masked(Line(), Binary(0.0), Annealed(), 0.5), "full", False),
    ("xma", Masked(Column(), Shift(), Identity(), start=1.0), "full", False),
    ("xma2", ArrayChoice(0.1, 4), "full", True),
    ("piggyback", Masked(Weight(), Binary(), Identity()), "full", True),
    ("piggyback_ternary", Masked(Weight(), Ternary(), Identity()), "full", True),
    ("ksm_binary", Masked(Kernel(), Binary(), Sigmoid()), "full", True),
    ("ksm_soft", Masked(Kernel(), Soft(), Sigmoid()), "full", True),
    ("lora", LowRank(4, 4.0), "full", False),
    ("finetune", Rewritten(), "full", True),
]


@pytest.mark.parametrize(("name", "rule", "norms", "rewrites"), TABLE)
def test_methods_by_name(name: str, rule: Any, norms: str, rewrites: bool) -> None:
    method = methods.by_name(name)
    assert (method.name, method.rule, method.norms, method.rewrites_cells) == (name, rule, norms, rewrites)
    assert method == methods.by_name(name.replace("_", "-")) == methods.METHODS[name]()
    assert hash(method) == hash(methods.by_name(name))


def test_every_method_is_in_the_table_above() -> None:
    assert list(methods.METHODS) == [name for name, *_ in TABLE]


def test_options_reach_the_method() -> None:
    method = methods.by_name("xbm", norms="affine", estimator="sigmoid", lr=0.5)
    assert method == Method("xbm", Masked(Column(), Binary(), Sigmoid()), "affine", mask_lr=0.5)
    assert methods.finetune(lr=0.25).mask_lr == methods.piggyback(lr=0.25).mask_lr == 0.25
    assert methods.norm_only("affine").norms == "affine"


@pytest.mark.parametrize("name", ["XBM", "ksm", "", "xbm "])
def test_unknown_methods_are_named(name: str) -> None:
    with pytest.raises(MethodError, match=r"one of head_only, norm_only, xbm, .*, finetune") as caught:
        methods.by_name(name)
    assert (caught.value.field, caught.value.value) == ("method", name)


@pytest.mark.parametrize(
    ("make", "error", "name"),
    [
        (lambda: Method("m", norms="none"), MethodError, "Method.norms"),  # type: ignore[arg-type]
        (lambda: Method("m", norms=True), MethodError, "Method.norms"),  # type: ignore[arg-type]
        (lambda: methods.xbm(norms="all"), MethodError, "Method.norms"),  # type: ignore[arg-type]
        (lambda: methods.xbm(estimator="ste"), MethodError, "xbm.estimator"),  # type: ignore[arg-type]
        (lambda: Method("m", optimizer="rmsprop"), MethodError, "Method.optimizer"),  # type: ignore[arg-type]
        (lambda: methods.xbm(lr=-1.0), SpecError, "Method.mask_lr"),
        (lambda: Method("m", norm_lr=float("nan")), SpecError, "Method.norm_lr"),
        (lambda: Method("m", head_lr=float("inf")), SpecError, "Method.head_lr"),
        (lambda: Method("m", head_lr="0.1"), SpecError, "Method.head_lr"),  # type: ignore[arg-type]
    ],
)
def test_impossible_methods_are_refused(make: Any, error: type[Exception], name: str) -> None:
    with pytest.raises(error) as caught:
        make()
    assert caught.value.field == name  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------------------------------
# One of a user's own


@dataclass(frozen=True)
class FourColumns(Granularity):
    """One value per row tile and four neighbouring columns."""

    on_columns = True

    def shape(self, plan: Plan) -> tuple[int, ...]:
        return plan.row_tiles, plan.columns // 4

    def spread(self, values: jax.Array, plan: Plan) -> jax.Array:
        return jnp.repeat(values, 4, axis=1)


def learn(method: Method, steps: int) -> tuple[dict[str, Any], list[dict[str, Any]], list[float]]:
    """Plain Adam on one batch: what was trained, the gradients and the losses."""
    chip, images = tiny_chip(), jnp.asarray(tiny_images(32))
    labels = jnp.arange(32) % CLASSES
    trained = initial_trained(chip, method, CLASSES, jax.random.key(0))
    tx = optax.adam(3e-3)
    opt = tx.init(trained)

    def loss(trained: dict[str, Any]) -> jax.Array:
        start = jnp.float32(0)
        logits, _ = forward(chip, method, trained, chip.stats, images, train=True, progress=start)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    @jax.jit
    def step(trained: Any, opt: Any) -> tuple:
        value, grads = jax.value_and_grad(loss)(trained)
        updates, opt = tx.update(grads, opt, trained)
        return optax.apply_updates(trained, updates), opt, value, grads

    gradients, losses = [], []
    for _ in range(steps):
        trained, opt, value, grads = step(trained, opt)
        gradients.append(grads)
        losses.append(float(value))
    return trained, gradients, losses


def test_a_method_of_ones_own_learns_without_touching_a_cell() -> None:
    chip = tiny_chip()
    before = jax.tree.map(np.array, chip)
    method = methods.masked("four", FourColumns(), Binary(), Sigmoid(), norms="affine")
    trained, gradients, losses = learn(method, 12)
    assert {path: m.shape for path, m in trained["masks"].items()} == {
        "stem": (2, 2),
        "blocks/0/conv": (3, 2),
        "blocks/1/conv": (3, 2),
    }
    for path in CONVS:
        assert float(jnp.abs(gradients[0]["masks"][path]).min()) > 0
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, chip, before)
    for path, tiles in chip.tiles.items():
        assert method.rule is not None
        after, gain = method.rule.apply(tiles, trained["masks"][path])
        assert after is tiles and gain is not None
        np.testing.assert_array_equal(gain.reshape(-1, 2, 4), np.repeat(gain[:, ::4, None], 4, 2))
    bits = {bool(b) for path in CONVS for b in np.ravel(trained["masks"][path] > 5e-3)}
    assert bits == {False, True}
    assert not method.rewrites_cells


@pytest.mark.parametrize("name", ["norm_only", "xbm", "finetune"])
def test_gradients_exist_for_what_is_trained_alone(name: str) -> None:
    trained, gradients, _ = learn(methods.by_name(name), 1)
    assert jax.tree.structure(gradients[0]) == jax.tree.structure(trained)
    assert set(gradients[0]["masks"]) == (set() if name == "norm_only" else set(CONVS))
    assert set(gradients[0]["norms"]) == set(NORMS)
    for leaf in jax.tree.leaves(gradients[0]):
        assert bool(jnp.isfinite(leaf).all()) and float(jnp.abs(leaf).max()) > 0
