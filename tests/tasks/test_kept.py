"""What a bank keeps by default: folded norms in half precision, heads of 8 bits; and what cannot be done with it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.errors import BankError, DataError
from xbm_jax.masks import Linear, methods
from xbm_jax.models.norm import batch_norm, folded_norm
from xbm_jax.tasks import compact, evaluate, predict, stored, with_measured_norms
from xbm_jax.tasks.kept import measured_as_kept
from xbm_jax.training import Recipe, adapt

CHIP = tiny.chip("ideal")
IMAGES = tiny.stripes().x_test[:32]
RNG = np.random.default_rng(0)


def test_a_folded_norm_is_the_batch_norm() -> None:
    x = jnp.asarray(RNG.normal(3.0, 2.0, (4, 5, 6)), jnp.float32)
    affine = {name: jnp.asarray(RNG.normal(size=6), jnp.float32) for name in ("scale", "bias")}
    mean, var = RNG.normal(size=6), RNG.uniform(1, 2, 6)
    stats = {"mean": jnp.asarray(mean, jnp.float32), "var": jnp.asarray(var, jnp.float32)}
    folded = folded_norm(affine, stats, 1e-5)
    wanted = (np.asarray(x, np.float64) - stats["mean"]) / np.sqrt(np.float64(stats["var"]) + 1e-5)
    wanted = wanted * affine["scale"] + affine["bias"]
    for use_batch in (False, True):  # a folded norm has no statistics that could be a batch's
        y, after = batch_norm(x, folded, stats, 1e-5, use_batch=use_batch)
        np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5)
        assert after is stats
    assert folded_norm(folded, stats, 1e-5) is folded


@pytest.mark.parametrize("name", ["xbm", "norm_only-affine", "head_only"])
def test_a_compact_task_answers_as_the_learned_one_to_its_rounding(name: str) -> None:
    task = tiny.made_up_task(CHIP, tiny.METHODS[name])
    small = compact(CHIP, task)
    assert small.state == {} and compact(CHIP, small) == small
    bits = {leaf.dtype.itemsize * 8 for leaf in jax.tree.leaves((small.trained["norms"], small.trained["head"]))}
    assert bits == {8, 16}
    learned, kept = predict(CHIP, task, IMAGES), predict(CHIP, small, IMAGES)
    assert 0 < np.abs(kept - learned).max() < 0.02 * np.ptp(learned)


def test_a_head_keeps_its_weights_to_half_a_step_of_127() -> None:
    head = Linear()
    params = head.init(20, 7, jax.random.key(0))
    params = {"kernel": params["kernel"].at[:, 3].set(0.0), "bias": jnp.arange(7.0)}
    small = head.compact(params)
    full = head.full(small)
    step = np.abs(params["kernel"]).max(0) / 127
    assert small["kernel"].dtype == jnp.int8 and np.all(np.abs(full["kernel"] - params["kernel"]) <= 0.51 * step)
    x = jnp.asarray(RNG.normal(size=(3, 20)), jnp.float32)
    np.testing.assert_allclose(head.apply(small, x), head.apply(full, x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(head.full(params)["kernel"], params["kernel"])
    wide = head.cut(head.padded(small, 64), 7)
    assert all(np.array_equal(wide[name], small[name]) for name in small)


def test_numbers_that_half_precision_cannot_hold_stay_as_they_are() -> None:
    task = tiny.made_up_task(CHIP, tiny.METHODS["xbm"])
    norms = {p: {**a, "bias": a["bias"].at[0].set(1e6)} if p == "bn2" else a for p, a in task.trained["norms"].items()}
    small = compact(CHIP, task.replace(trained={**task.trained, "norms": norms}))
    assert {leaf.dtype for leaf in jax.tree.leaves(small.trained["norms"])} == {jnp.dtype("float32")}
    head = {"kernel": jnp.full((3, 2), 1e9), "bias": jnp.zeros(2)}
    assert Linear().compact(head) is head


def test_statistics_measured_for_frozen_norms_are_folded_too() -> None:
    task = stored(CHIP, tiny.made_up_task(CHIP, tiny.METHODS["head_only"]))
    task = with_measured_norms(CHIP, task, IMAGES, batch_size=8)
    assert task.state and not task.trained["norms"]
    small = compact(CHIP, task)
    np.testing.assert_allclose(predict(CHIP, small, IMAGES), predict(CHIP, task, IMAGES), atol=0.05)


def test_a_compact_task_is_not_learned_on() -> None:
    small = compact(CHIP, tiny.made_up_task(CHIP, tiny.METHODS["xbm"]))
    with pytest.raises(DataError, match=r"start = 'a compact task': a task to learn on: .*compact=False"):
        adapt(CHIP, tiny.stripes(), method=methods.xbm(), key=jax.random.key(0), config=Recipe(epochs=1), start=small)
    with pytest.raises(BankError, match=r"task = 'compact'"):
        with_measured_norms(CHIP, small, IMAGES, batch_size=8)


def test_norms_of_a_compact_task_that_trains_none_are_measured_again() -> None:
    task = stored(CHIP, tiny.made_up_task(CHIP, tiny.METHODS["head_only"]))
    found = with_measured_norms(CHIP, compact(CHIP, task), IMAGES, batch_size=8)
    tiny.assert_same_bits(found.state, with_measured_norms(CHIP, task, IMAGES, batch_size=8).state)


def test_a_head_of_ones_own_is_kept_as_it_is() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own(Linear):
        def compact(self, params: dict[str, jax.Array]) -> dict[str, jax.Array]:
            return params

    method = dataclasses.replace(tiny.METHODS["xbm"], head=Own())
    small = compact(CHIP, tiny.made_up_task(CHIP, method))
    assert small.trained["head"]["kernel"].dtype == jnp.float32


def test_what_is_reported_is_what_the_stored_form_answers() -> None:
    chip, data = tiny.chip("ideal"), tiny.stripes()
    task = tiny.made_up_task(chip, methods.xbm())
    kept = measured_as_kept(chip, task, data.x_test, data.y_test)
    assert kept == compact(chip, task)
    assert kept.meta["accuracy"] == evaluate(chip, kept, data.x_test, data.y_test) != 0.5
    assert kept.meta["accuracy_learned"] == 0.5 and task.meta["accuracy"] == 0.5
