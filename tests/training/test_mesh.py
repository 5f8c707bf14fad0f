"""Devices that share a training: the losses, bits and draws of one device."""

import dataclasses

import jax
import numpy as np
import pytest

import xbm_jax as xbm
from cost import slow_but
from tasks import tiny
from xbm_jax.errors import SpecError
from xbm_jax.layout import Layout
from xbm_jax.training import Recipe, adapt, adapt_together

RECIPE = Recipe(epochs=2, batch_size=16)
KEY = jax.random.key(5)


def losses(task):
    return [row["loss"] for row in task.meta["history"]]


def bits(task):
    return np.concatenate([np.asarray(m).ravel() > 0 for m in jax.tree.leaves(task.trained["masks"])])


@pytest.mark.parametrize("kind", slow_but(["adc"], ["adc", "noisy"]))
def test_a_batch_shared_by_eight_devices_gives_the_losses_and_mask_bits_of_one(kind):
    """34 steps: sums over the batch are taken in another order, to rounding; no bit is that near to zero."""
    given = (tiny.chip(kind), tiny.stripes())
    alone = adapt(*given, method=tiny.METHODS["xbm"], key=KEY, config=RECIPE)
    shared = adapt(*given, method=tiny.METHODS["xbm"], key=KEY, config=RECIPE, mesh=xbm.mesh())
    np.testing.assert_allclose(losses(shared), losses(alone), rtol=2e-3)
    assert np.array_equal(bits(shared), bits(alone)) and len(set(bits(alone))) == 2
    assert shared.meta["accuracy"] == pytest.approx(alone.meta["accuracy"], abs=2 / 160)
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(shared.trained)} == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "data"), [(4, 2), (2, 4)])
def test_tasks_shared_by_devices_are_those_of_one(task, data):
    chip, sets = tiny.chip("adc"), [tiny.stripes()] * 4
    keys = jax.random.split(KEY, 4)
    given = {"method": tiny.METHODS["xbm"], "keys": keys, "config": RECIPE}
    alone = adapt_together(chip, sets, **given)
    shared = adapt_together(chip, sets, **given, mesh=xbm.mesh(task=task, data=data))
    for got, wanted in zip(shared, alone, strict=True):
        np.testing.assert_allclose(losses(got), losses(wanted), rtol=2e-3)
        assert np.array_equal(bits(got), bits(wanted))
    assert losses(alone[0]) != losses(alone[1])


@pytest.mark.parametrize("name", slow_but(["head_only"], ["head_only", "xma2"]))
def test_other_methods_too(name):
    given = (tiny.chip("ideal"), tiny.stripes())
    config = dataclasses.replace(RECIPE, epochs=4 if name == "xma2" else 1)
    alone = adapt(*given, method=tiny.METHODS[name], key=KEY, config=config)
    shared = adapt(*given, method=tiny.METHODS[name], key=KEY, config=config, mesh=xbm.mesh())
    np.testing.assert_allclose(losses(shared), losses(alone), rtol=2e-3)


def test_a_process_makes_the_rows_of_its_own_devices_alone():
    """Of a mesh whose first half is this process's, half the rows; here all devices are."""
    asked = []

    def make(task, rows):
        asked.append((task, rows))
        return np.arange(16)[rows] + 100 * task

    made = Layout(xbm.mesh(task=2)).batch(make, 2, 16)
    assert asked == [(0, slice(0, 16)), (1, slice(0, 16))]
    np.testing.assert_array_equal(made, np.stack([np.arange(16), np.arange(16) + 100]))
    assert {shard.data.shape for shard in made.addressable_shards} == {(1, 4)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xbm.mesh(task=3), "mesh = '3 x 2': parts whose product is 8"),
        (lambda: xbm.mesh(task=0), "mesh.task = 0: a whole number"),
        (lambda: xbm.mesh(task=2, data=True), "mesh.data = True: a whole number"),
        (lambda: Layout("cpu"), "mesh = 'str'"),  # type: ignore[arg-type]
        (lambda: Layout(jax.make_mesh((8,), ("model",))), "mesh.axis_names = ('model',)"),
        (lambda: Layout(jax.make_mesh((8,), ("data",))), "mesh.axis_types"),
        (lambda: Layout(xbm.mesh()).check(1, 12, 128), "config.batch_size = 12: a multiple of 8"),
        (lambda: Layout(xbm.mesh()).check(1, 16, 100), "config.eval_batch_size = 100"),
        (lambda: Layout(xbm.mesh(task=4)).check(6, 16, 128), "tasks = 6: a multiple of 4"),
    ],
)
def test_what_cannot_be_shared_is_refused_by_name(make, message):
    with pytest.raises(SpecError) as error:
        make()
    assert message in str(error.value)
