"""The training loop: steps follow each other without the host between them."""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import Primitive

from tasks import tiny
from xbm_jax.errors import TrainingError
from xbm_jax.masks import methods
from xbm_jax.training import Recipe, adapt

loop = import_module("xbm_jax.training.loop")


class Asked:
    """A number that a step gives; it notes how many steps had been called when it was first waited for."""

    def __init__(self, value: jax.Array, calls: list[Asked]) -> None:
        self.value, self.calls, self.at = value, calls, 0

    def block_until_ready(self) -> Asked:
        self.at = self.at or len(self.calls)
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        self.block_until_ready()
        return np.asarray(self.value, dtype)

    def __jax_array__(self) -> jax.Array:
        self.block_until_ready()
        return self.value


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Of all steps that are called from now on."""
    calls: list[Asked] = []
    step = loop.train_step

    def noted(*args: Any) -> Any:
        state, seen = step(*args)
        calls.append(Asked(seen["loss"], calls))
        return state, {**seen, "loss": calls[-1]}

    monkeypatch.setattr(loop, "train_step", noted)
    return calls


def learned(method: Any = tiny.METHODS["xbm"], config: Any = None, **options: Any) -> Any:
    config, key = config or Recipe(epochs=1, batch_size=4), jax.random.key(1)
    return adapt(tiny.chip("ideal"), tiny.stripes(), method=method, key=key, config=config, **options)


def test_steps_are_called_ahead_of_what_they_give(losses: list[Asked]) -> None:
    learned()
    steps = len(losses)
    ahead = [min(step + loop._IN_FLIGHT, steps) for step in range(1, steps + 1)]
    assert steps > 2 * loop._IN_FLIGHT
    assert [each.at for each in losses] == [1, *ahead[1:]]  # the first compiles, and starts the clock


def test_between_two_steps_the_host_calls_compiled_functions_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation by itself takes the host longer than a call of what is compiled: none stands in a step's way."""
    bind, step = Primitive.bind, loop._step
    found: list[list[str]] = []
    within: list[str] = []

    def noted(self: Primitive, *args: Any, **params: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            within.append(self.name)
        return bind(self, *args, **params)

    def counted(*args: Any) -> Any:
        within.clear()
        result = step(*args)
        found.append(list(within))
        return result

    monkeypatch.setattr(loop, "_step", counted)
    monkeypatch.setattr(Primitive, "bind", noted)
    learned(tiny.METHODS["xbm"])
    within.clear()
    jax.random.fold_in(jax.random.key(0), 1)
    assert "threefry2x32" in within or "random_fold_in" in within  # what is looked for would be seen
    assert found[2:] == [[]] * (len(found) - 2)


def test_every_step_is_reported_in_order_while_later_ones_are_under_way(losses: list[Asked]) -> None:
    seen: list[tuple[int, int]] = []
    learned(report=lambda row: seen.append((row["step"], len(losses))))
    steps = len(losses)
    assert seen == [(step, min(step + loop._IN_FLIGHT, steps)) for step in range(1, steps + 1)]


def test_a_loss_that_is_none_is_traced_to_its_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scale of a norm goes NaN in the seventh step: the layer behind it is the first that gets such numbers."""
    step, order = loop.train_step, []

    def spoiled(*args: Any) -> Any:
        state, seen = step(*args)
        order.append(float(args[6].progress))
        if order[-1] == order[:7][-1] and len(order) > 6:
            norms = dict(state.trained["norms"])
            norms["bn1"] = {**norms["bn1"], "scale": norms["bn1"]["scale"] * float("nan")}
            state = state._replace(trained={**state.trained, "norms": norms})
        return state, seen

    monkeypatch.setattr(loop, "train_step", spoiled)
    found = "loss at step 8 of .* = nan: .*; not finite first: what conv2 is given"
    with pytest.raises(TrainingError, match=found):
        learned(methods.norm_only(), Recipe(epochs=1, batch_size=4))
