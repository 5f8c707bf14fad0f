"""A network whose second layer has an order of its own, and the same network with its channels moved instead.

The first layer's outputs, their norm and the second layer's inputs are moved together: nothing that leaves the second
layer changes. So all that is known of ``"channel"`` holds of the order, through calibration, prediction, inspection,
population and serving.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank
from xbm_jax.crossbar import ChannelOrder
from xbm_jax.errors import SpecError
from xbm_jax.models import Backbone, Chip, calibrate, program
from xbm_jax.serving import serve
from xbm_jax.tasks import Task, inspect, population_accuracy, predict

ORDER = np.random.default_rng(0).permutation(tiny.WIDTH)
IMAGES = tiny.stripes().x_test[:16]
RULES = {"conv2": tiny.SPECS["adc"].replace(row_order=ChannelOrder(ORDER))}


def moved() -> Backbone:
    arrays = dict(tiny.weights().arrays)
    arrays["conv1/kernel"] = arrays["conv1/kernel"][..., ORDER]
    arrays["conv2/kernel"] = arrays["conv2/kernel"][..., ORDER, :]
    arrays |= {path: array[ORDER] for path, array in arrays.items() if path.startswith("bn1/")}
    return dataclasses.replace(tiny.weights(), arrays=arrays)


def chips() -> tuple[Chip, Chip]:
    own = program(tiny.weights(), tiny.SPECS["adc"], jax.random.key(0), rules=RULES)
    twin = program(moved(), tiny.SPECS["adc"], jax.random.key(0))
    return calibrate(own, IMAGES), calibrate(twin, IMAGES)


def tasks(own: Chip, twin: Chip) -> tuple[Task, Task]:
    """The same masks; those of the first layer's columns, and their norm, moved."""
    task = tiny.made_up_task(own, tiny.METHODS["xbm"])
    masks, norms = task.trained["masks"], task.trained["norms"]
    masks = {**masks, "conv1": masks["conv1"][:, ORDER]}
    norms = {**norms, "bn1": {name: array[ORDER] for name, array in norms["bn1"].items()}}
    state = {**task.state, "bn1": {name: array[ORDER] for name, array in task.state["bn1"].items()}}
    return task, task.replace(trained={**task.trained, "masks": masks, "norms": norms}, state=state)


@pytest.mark.slow
def test_an_order_does_what_moving_the_channels_does(tmp_path) -> None:
    own, twin = chips()
    assert own.tiles["conv2"].plan.tile_index.tolist() != twin.tiles["conv2"].plan.tile_index.tolist()
    for path in ("conv2", "conv3"):
        jax.tree.map(np.testing.assert_array_equal, own.tiles[path].adc, twin.tiles[path].adc)
    task, twin_task = tasks(own, twin)
    assert float(jnp.mean(task.trained["masks"]["conv2"] > 0)) > 0
    logits = predict(own, task, IMAGES, batch_size=16)
    np.testing.assert_allclose(logits, predict(twin, twin_task, IMAGES, batch_size=16), rtol=0, atol=1e-5)
    for one, other in zip(inspect(own, IMAGES, task).layers, inspect(twin, IMAGES, twin_task).layers, strict=True):
        assert one.snr_db == pytest.approx(other.snr_db, abs=1e-3)
        assert (one.clip_rate, one.codes_used, one.macs) == (other.clip_rate, other.codes_used, other.macs)
    bank = MaskBank.create(tmp_path, own)
    bank.put("masks", task, compact=False)
    served = serve(own, bank, ["masks"], batch_size=16).logits(IMAGES, "masks")
    np.testing.assert_allclose(served, logits, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_population_follows_the_order() -> None:
    labels, keys = np.arange(16) % 5, jax.random.split(jax.random.key(1), 2)
    many = {"images": IMAGES, "labels": labels, "calibration_images": IMAGES}
    own = population_accuracy(tiny.weights(), tiny.SPECS["adc"], keys, rules=RULES, **many)
    twin = population_accuracy(moved(), tiny.SPECS["adc"], keys, **many)
    np.testing.assert_array_equal(own.accuracies, twin.accuracies)


def test_the_layer_that_an_order_does_not_fit_is_named() -> None:
    spec = tiny.SPECS["adc"].replace(row_order=ChannelOrder(ORDER))
    wanted = r"^conv1\.row_order = .*of the layer's 3 input channels.*program\(\.\.\., rules="
    with pytest.raises(SpecError, match=wanted):
        program(tiny.weights(), spec, jax.random.key(0))
