"""What training asks of its arguments, before the first step; and which numbers are none."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.data import Dataset
from xbm_jax.errors import DataError, MethodError, SpecError
from xbm_jax.examples import take
from xbm_jax.masks import Method
from xbm_jax.masks.budget import check_budget
from xbm_jax.masks.rules import is_real
from xbm_jax.models import Chip, check_calibrated, check_inputs
from xbm_jax.streams import checked_key
from xbm_jax.tasks import Task
from xbm_jax.tasks.task import is_compact
from xbm_jax.training.recipe import Recipe

__all__ = [
    "check_arguments",
    "check_chip",
    "check_data",
    "check_fit",
    "check_split",
    "first_not_finite",
    "started",
]


def check_arguments(
    chip: Any, data: Any, method: Any, key: Any, config: Any, report: Any, start: Any, chip_of_step: Any
) -> None:
    """Raise unless each is of its kind, whatever it holds; ``None`` stands for the last three where there is none."""
    check_chip(chip)
    check_data(data)
    if not isinstance(method, Method):
        raise MethodError("method", _shown(method), "a Method, such as xbm.methods.xbm()")
    checked_key(key)
    if not isinstance(config, Recipe):
        raise SpecError("config", _shown(config), "a Recipe, or None for the usual settings")
    if not isinstance(start, Task | None):
        raise SpecError("start", _shown(start), "a Task to start from, or None")
    for name, function in (("report", report), ("chip_of_step", chip_of_step)):
        if function is not None and not callable(function):
            raise SpecError(name, _shown(function), "a function, or None")


def check_chip(chip: Any) -> None:
    """Raise unless it is a chip."""
    if not isinstance(chip, Chip):
        raise SpecError("chip", _shown(chip), "a Chip: xbm.program(backbone, spec, key) makes one")


def check_data(data: Any) -> None:
    """Raise unless it is a data set."""
    if not isinstance(data, Dataset):
        raise DataError("data", _shown(data), "a Dataset: xbm.load(name), or xbm.data.Dataset(...)")


def _shown(value: Any) -> Any:
    """What an error shows of a value of the wrong kind: itself where it is short, else its kind and shape."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" of shape {shape}")


def check_fit(chip: Chip, data: Dataset, method: Method, config: Recipe) -> None:
    """Raise unless chip, images, method and settings go together."""
    check_calibrated(chip)
    if data.kind == "images":
        check_inputs(chip, take(data.x_train, slice(1)))
    else:  # what may be wrong in one example alone: a token beyond the network's
        check_inputs(chip, data.x_train)
        check_inputs(chip, data.x_test)
    if config.augment is not None:
        if data.kind != "images":
            raise SpecError("config.augment", config.augment, "None: these data are no images")
        config.augment.check_fits(data.x_train)
    config.objective.outputs(data)
    if method.rule is not None and (needed := method.rule.check({"epochs": config.epochs})):
        raise SpecError("config.epochs", config.epochs, f"{needed} by {method.name!r}")
    if config.budget is not None:
        check_budget(config.budget, method.rule, chip.tiles.keys())
    check_split(len(data.y_train), len(data.y_train) - 1, config)


def check_split(images: int, left: int, config: Recipe) -> None:
    """Raise unless the ``left`` training images beside the validation split fill a batch."""
    if left < config.batch_size:
        allowed = f"more than batch_size = {config.batch_size} besides the validation split"
        raise DataError("data.x_train", f"{images} images", allowed)


def started(trained: Any, stats: Any, method: Method, start: Task | None) -> tuple[Any, Any]:
    """What training starts from: of ``start`` what the method trains too, the rest as it is.

    Raises:
        DataError: parts of ``start`` that have other layers or shapes, or numbers that are none.
    """
    if start is None:
        return trained, stats
    if is_compact(start):
        allowed = "a task to learn on: as adapt gave it, or bank.put(name, task, compact=False)"
        raise DataError("start", "a compact task", allowed)
    taken, head = {}, start.trained["head"]
    if head:
        outputs = method.head.outputs(trained["head"])
        if start.method.head != method.head or start.outputs != outputs:
            allowed = f"{outputs}, those of the task, or none"
            raise DataError("start", f"a head of {start.outputs} classes", allowed)
        taken["head"] = head
    if trained["norms"] and start.trained["norms"]:
        taken["norms"] = start.trained["norms"]
    values = jax.tree.leaves(start.trained["masks"])
    if start.method.rule == method.rule and all(is_real(leaf) for leaf in values):
        taken["masks"] = start.trained["masks"]
    own_stats = method.norms == "full" and start.state  # without a state of its own a task predicts with the chip's
    first = {**trained, **jax.tree.map(jnp.array, taken)}, start.state if own_stats else stats
    if jax.tree.map(jnp.shape, first) != jax.tree.map(jnp.shape, (trained, stats)):
        raise DataError("start", "layers or shapes of another network", "a task of the chip's backbone and arrays")
    broken = first_not_finite(first)
    if broken is not None:
        raise DataError("start", f"{broken} not finite", "finite numbers")
    return first


def first_not_finite(tree: Any) -> str | None:
    """The path of the first array that holds NaN or infinity; ``None`` if none does."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(jax.device_get(tree))[0]:
        if not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path, simple=True, separator="/")
    return None
