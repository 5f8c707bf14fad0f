"""What a chip is asked to do: examples, how their inputs drive it, copies of layers, and how a task was trained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Tiles, read
from xbm_jax.crossbar.primitives.quantise import input_code_limits
from xbm_jax.crossbar.reading.sums import input_codes, input_digits
from xbm_jax.crossbar.validate import check_choice, check_int, check_number
from xbm_jax.errors import SpecError
from xbm_jax.hardware.inventories import Inventory, Numbers, inventory
from xbm_jax.models import Chip, check_calibrated, check_inputs, forward
from xbm_jax.streams import checked_key
from xbm_jax.tasks import Task, source_task

__all__ = ["Activity", "Training", "Workload", "measure_activity", "workload"]

Schedule = Literal["end", "epoch", "step"]
Backward = Literal["digital", "arrays"]


@dataclass(frozen=True)
class Training:
    """How a task was learned: what adaption costs follows from it.

    Args:
        images: training images.
        epochs: passes over them.
        batch_size: images a step.
        schedule: when a method that rewrites cells writes them: ``"end"``: once, learned elsewhere; ``"epoch"``: after
            every epoch; ``"step"``: at every step, learned in place.
        backward: what computes the products of the backward pass: ``"digital"`` logic, or the ``"arrays"`` read the
            other way for the gradients of inputs (gradients of weights are digital always).
        rewritten: cells that a write after an epoch or a step changes, as a share of those that the finished task
            differs in from the backbone.
    """

    images: int = 0
    epochs: int = 1
    batch_size: int = 32
    schedule: Schedule = "end"
    backward: Backward = "digital"
    rewritten: float = 1.0

    def __post_init__(self) -> None:
        check_int("Training.images", self.images, 0, 10**10)
        check_int("Training.epochs", self.epochs, 1, 10**6)
        check_int("Training.batch_size", self.batch_size, 1, 10**6)
        check_choice("Training.schedule", self.schedule, ("end", "epoch", "step"))
        check_choice("Training.backward", self.backward, ("digital", "arrays"))
        check_number("Training.rewritten", self.rewritten, 0.0, 1e6)

    @property
    def examples(self) -> int:
        """Forward and backward passes of one example."""
        return self.images * self.epochs

    @property
    def writes(self) -> int:
        """How often cells are written, by a method that rewrites them."""
        steps = self.epochs * math.ceil(self.images / self.batch_size)
        return {"end": 1, "epoch": self.epochs, "step": max(steps, 1)}[self.schedule]


class Activity(NamedTuple):
    """How inputs drive word lines, by layer: shares of (word line, pass) pairs.

    Attributes:
        nonzero: those with an input other than zero.
        square: mean of ``(code / largest code)**2``, zeros included.
    """

    nonzero: Mapping[str, float]
    square: Mapping[str, float]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Workload:
    """What :func:`xbm_jax.hardware.cost` is asked about: a chip in numbers, its inputs, copies and training.

    Attributes:
        inventory: what of the chip the cost depends on.
        nonzero, square: see :class:`Activity`, float32 [L].
        copies: how often each layer is on the chip, so that it reads as many inputs at once, float32 [L].
        batch: examples that go through the chip one behind the other.
        training: static.
        off_lines: what happens on a line that is off: ``"conduct"``: it stays at virtual ground, as the simulated
            wires have it, so its cells conduct; ``"cut"``: its driver is high-impedance, so they do not. Static.
    """

    inventory: Inventory
    nonzero: Numbers
    square: Numbers
    copies: Numbers
    batch: Numbers = 1
    training: Training = field(default_factory=Training, metadata={"static": True})
    off_lines: Literal["conduct", "cut"] = field(default="conduct", metadata={"static": True})

    def replace(self, **changes: Any) -> Workload:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


def workload(
    chip: Chip,
    inputs: Any,
    *,
    activity: Activity | None = None,
    copies: int | Mapping[str, int] = 1,
    batch: int = 1,
    training: Training | None = None,
    off_lines: Literal["conduct", "cut"] = "conduct",
) -> Workload:
    """What a chip is asked to do, counted once; :func:`xbm_jax.hardware.cost` then takes milliseconds.

    Args:
        chip: programmed; its conductances are as they are now.
        inputs: examples or their ``jax.ShapeDtypeStruct``: their shape says how often each layer is read.
        activity: measured (:func:`measure_activity`) or given; ``None``: every input drives its line at full scale,
            an upper bound (zeros that a layer puts between inputs drive none).
        copies: of every layer, or of those named.
        batch: examples one behind the other, for the time of a batch.
        training: of the task; ``None``: none.
        off_lines: see :class:`Workload`.

    Raises:
        SpecError: ideal converters, or a wrong option. ModelError: inputs that no count can be made of.
    """
    counted = inventory(chip, inputs)
    check_int("batch", batch, 1, 10**9)
    check_choice("off_lines", off_lines, ("conduct", "cut"))
    full = counted.per_layer["driven"]
    return Workload(
        counted,
        full if activity is None else _by_layer("activity.nonzero", activity.nonzero, counted, 0.0, 1.0),
        full if activity is None else _by_layer("activity.square", activity.square, counted, 0.0, 1.0),
        _copies(copies, counted),
        batch,
        training or Training(),
        off_lines,
    )


def _copies(copies: int | Mapping[str, int], counted: Inventory) -> np.ndarray:
    if not isinstance(copies, Mapping):
        return np.full(len(counted.layers), check_int("copies", copies, 1, 10**6), np.float32)
    given = {**dict.fromkeys(counted.layers, 1), **copies}
    return _by_layer("copies", given, counted, 1, 10**6)


def _by_layer(field_name: str, values: Mapping[str, float], counted: Inventory, low: float, high: float) -> np.ndarray:
    """Values by path as an array in the chip's order."""
    if wrong := sorted(set(values) ^ set(counted.layers)):
        raise SpecError(field_name, ", ".join(wrong), "one value for each of: " + ", ".join(counted.layers))
    checked = [check_number(f"{field_name}[{path!r}]", values[path], low, high) for path in counted.layers]
    return np.array(checked, np.float32)


def measure_activity(chip: Chip, images: Any, task: Task | None = None, key: jax.Array | None = None) -> Activity:
    """How one batch of images drives each layer's word lines, under a task's masks and norms.

    Raises:
        SpecError: a chip that is not calibrated. DataError: images that it cannot read.
    """
    check_calibrated(chip)
    task = source_task(chip) if task is None else task
    inputs = check_inputs(chip, images)
    key = None if key is None else checked_key(key)
    found = jax.device_get(_activities(chip, task, inputs, key))
    return Activity({p: float(v[0]) for p, v in found.items()}, {p: float(v[1]) for p, v in found.items()})


@jax.jit
def _activities(chip: Chip, task: Task, inputs: Any, key: jax.Array | None) -> dict[str, jax.Array]:
    """``[nonzero, square]`` of each layer; of one called twice the mean of its calls."""
    seen: dict[str, list[jax.Array]] = {}

    def observe(path: str, tiles: Tiles, x: jax.Array, gain: jax.Array | None, key: jax.Array | None) -> jax.Array:
        seen.setdefault(path, []).append(_drive(tiles, x))
        return read(tiles, x, gain, key)

    forward(chip, task.method, task.trained, task.state or chip.stats, inputs, key=key, layer_read=observe)
    return {path: jnp.mean(jnp.stack(calls), 0) for path, calls in seen.items()}


def _drive(tiles: Tiles, x: jax.Array) -> jax.Array:
    """Share of nonzero digits that a layer's DACs get, and their mean square in units of the largest."""
    plan = tiles.plan
    digits = jnp.stack(input_digits(plan, input_codes(tiles, x)))
    # What the DAC can stream, whether or not this chip's reads fold.
    top = (
        2 ** (plan.spec.dac_bits or 0) - 1
        if plan.spec.cycles > 1
        else input_code_limits(plan.spec.input_bits, plan.signed_inputs)[1]
    )
    passes = 2 if plan.two_pass else 1  # of two passes a line is driven in one
    return jnp.stack([jnp.mean(digits != 0), jnp.mean((digits / top) ** 2)]) / passes
