"""A learned task as plain Flax variables: the module answers as the task does on its chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import xbm_jax as xbm
from tasks import tiny
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.errors import BankError, MethodError
from xbm_jax.masks import Head, Rule, methods
from xbm_jax.models import forward, held_weights
from xbm_jax.tasks import compact

IMAGES = tiny.stripes().x_test[:16]
METHODS = {**tiny.METHODS, "xma": methods.xma(), "lines": methods.xbm_lines()}


def answer(variables: Any) -> np.ndarray:
    """Of the module alone, with the task's number of outputs."""
    module = tiny.TinyNet(4, rngs=nnx.Rngs(0))
    nnx.update(module, variables)
    module.eval()
    preprocess = tiny.network().preprocess
    assert preprocess is not None
    return np.asarray(module(preprocess(jnp.asarray(IMAGES))))


@pytest.mark.parametrize("stored", [False, True], ids=["learned", "compact"])
@pytest.mark.parametrize("name", METHODS)
def test_the_module_answers_as_the_task_does(name: str, stored: bool) -> None:
    """To float rounding where inputs are not rounded to codes; as the chip reads, up to those."""
    chip = tiny.chip("ideal")
    task = tiny.made_up_task(chip, METHODS[name]).replace(chip=tiny.mark(chip))
    if name == "xma":  # logits further apart: its gains would all be one
        masks = jax.tree.map(lambda m: m + 30 * (m - m.mean()), task.trained["masks"])
        task = task.replace(trained={**task.trained, "masks": masks})
    task = compact(chip, task) if stored else task
    found = answer(xbm.flax_variables(chip, task))

    def exactly(path: str, tiles: Any, x: jax.Array, gain: jax.Array | None, key: Any) -> jax.Array:
        del path, key
        return product(x, held_weights(tiles, gain), tiles.plan.conv)

    trained, stats = task.trained, task.state or chip.stats
    wanted = np.asarray(forward(chip, task.method, trained, stats, IMAGES, layer_read=exactly)[0])
    top = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-5 * top)
    of_chip = xbm.predict(chip, task, IMAGES)
    assert np.median(np.abs(of_chip - found)) < 0.02 * top  # gains may put single inputs beyond the largest code
    if task.method.rule is not None:  # and the task is not the backbone's weights under its norms and head
        bare = task.replace(method=methods.norm_only(), trained={**trained, "masks": {}})
        assert np.abs(answer(xbm.flax_variables(chip, bare)) - found).max() > 1e-3 * top


def test_without_a_task_it_is_the_source_task() -> None:
    chip = tiny.chip("ideal")
    own = xbm.flax_variables(chip)
    tiny.assert_same_bits(own, xbm.models.flax_variables(chip))


@dataclass(frozen=True)
class Curved(Rule):
    """Adds what is no product."""

    @property
    def computes_beside(self) -> bool:
        return True

    def apply(self, tiles: Any, values: Any, progress: Any = None) -> Any:
        return tiles, None


@dataclass(frozen=True)
class Another(Head):
    """A head of other arrays."""

    def full(self, params: Any) -> Any:
        return {"kernel": params["kernel"]}


def test_what_no_kernels_stand_for_is_refused() -> None:
    chip = tiny.chip("ideal")
    task = tiny.made_up_task(chip, methods.xbm())
    curved = task.replace(method=xbm.Method("curved", Curved(), norms="full"))
    with pytest.raises(MethodError, match=r"curved.*digital part is a product"):
        xbm.flax_variables(chip, curved)
    plain = tiny.made_up_task(chip, methods.head_only())
    with pytest.raises(MethodError, match=r"Another.*a linear one"):
        xbm.models.flax_variables(chip, xbm.Method("other", norms="frozen", head=Another()), plain.trained)
    other = tiny.chip("ideal", key=1)
    with pytest.raises(BankError, match=r"task\.chip"):
        xbm.flax_variables(chip, task.replace(chip=tiny.mark(other)))
