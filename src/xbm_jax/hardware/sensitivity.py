"""Which assumption moves an answer most: every constant and choice changed by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar.validate import check_number
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.costs import CostReport, cost
from xbm_jax.hardware.workloads import Workload
from xbm_jax.models import Chip
from xbm_jax.tasks import Task

__all__ = ["Swing", "swings"]


class Swing(NamedTuple):
    """What an answer becomes when one assumption changes.

    Attributes:
        assumption: the constant or choice, and how it was changed.
        low, high: the answer at the lower and the higher setting, in the answer's unit.
    """

    assumption: str
    low: float
    high: float

    @property
    def size(self) -> float:
        """How far apart the two are."""
        return abs(self.high - self.low)


def swings(
    chip: Chip,
    task: Task,
    technology: Technology,
    workload: Workload,
    answer: Callable[[CostReport], jax.Array] = lambda report: report.inference_joules,
    factor: float = 2.0,
) -> list[Swing]:
    """The largest first: every constant over and times ``factor`` (temperature: 30 K), and the workload's choices.

    All constants are changed in one vmapped call.
    """
    check_number("factor", factor, 1.0, 100.0, open_low=True)
    names = [name for name in technology.constants if name not in ("adc_bits", "columns_per_adc")]
    base = {name: jnp.asarray(value, jnp.float32) for name, value in technology.constants.items()}

    def with_one(index: jax.Array, up: jax.Array) -> jax.Array:
        changed = dict(base)
        for i, name in enumerate(names):
            moved = base[name] + 30.0 * up if name == "temperature_kelvin" else base[name] * factor**up
            changed[name] = jnp.where(index == i, moved, base[name])
        return answer(cost(chip, task, dataclasses.replace(technology, constants=changed), workload))

    at = jnp.repeat(jnp.arange(len(names)), 2)
    found = np.asarray(jax.vmap(with_one)(at, jnp.tile(jnp.array([-1.0, 1.0]), len(names)))).reshape(-1, 2)
    how = {name: "± 30 K" if name == "temperature_kelvin" else f"/ {factor:g}, x {factor:g}" for name in names}
    all_swings = [
        Swing(f"{name} ({how[name]})", float(low), float(high)) for name, (low, high) in zip(names, found, strict=True)
    ]
    for name, changed in _choices(workload):
        low, high = (float(answer(cost(chip, task, technology, one))) for one in changed)
        all_swings.append(Swing(name, low, high))
    return sorted(all_swings, key=lambda swing: -swing.size)


def _choices(workload: Workload) -> list[tuple[str, tuple[Workload, Workload]]]:
    """Choices that are no constants, each with its cheaper and its dearer setting."""
    full = np.ones(len(workload.inventory.layers), np.float32)
    training = workload.training
    by = {name: workload.replace(training=dataclasses.replace(training, schedule=name)) for name in ("end", "step")}
    other = {
        name: workload.replace(training=dataclasses.replace(training, backward=name)) for name in ("arrays", "digital")
    }
    return [
        ("inputs (half of what is driven, full drive)", _halved(workload, full)),
        ("off lines (cut, conduct)", (workload.replace(off_lines="cut"), workload.replace(off_lines="conduct"))),
        ("cells written (at the end, at every step)", (by["end"], by["step"])),
        ("backward pass (arrays, digital)", (other["arrays"], other["digital"])),
    ]


def _halved(workload: Workload, full: np.ndarray) -> tuple[Workload, Workload]:
    less = workload.replace(nonzero=workload.nonzero / 2, square=workload.square / 2)
    return less, workload.replace(nonzero=full, square=full)
