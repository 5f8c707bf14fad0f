"""A population: many chips of one design, each with its own random draws, one accuracy each, in one compiled call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from xbm_jax.crossbar import CrossbarSpec, Faults, Ideal, with_signed_inputs
from xbm_jax.crossbar.devices.ages import check_age
from xbm_jax.crossbar.validate import check_int
from xbm_jax.data.dataset import check_label_range, check_labels
from xbm_jax.errors import DataError, SpecError
from xbm_jax.examples import count
from xbm_jax.masks import Method
from xbm_jax.models import (
    Backbone,
    Chip,
    LayerSpecs,
    another,
    calibrate,
    check_inputs,
    forward,
    measure_ranges,
    program,
)
from xbm_jax.promotion import numpy_promotion
from xbm_jax.streams import stream
from xbm_jax.tasks.evaluation import EVAL_BATCH, batches
from xbm_jax.tasks.task import Task, source_task

__all__ = ["Population", "design", "population_accuracy"]


@dataclass(frozen=True, eq=False)
class Population:
    """What many chips of one design reach.

    Attributes:
        accuracies: share of images that each chip predicts as labelled, float64 [chips].
    """

    accuracies: np.ndarray

    @property
    def mean(self) -> float:
        """Mean over the chips."""
        return float(np.mean(self.accuracies))

    @property
    def std(self) -> float:
        """Standard deviation between chips, by the unbiased estimate (n - 1); NaN for a single chip."""
        return float(np.std(self.accuracies, ddof=1)) if len(self.accuracies) > 1 else float("nan")


@numpy_promotion
def population_accuracy(
    backbone: Backbone,
    spec: CrossbarSpec,
    keys: jax.Array,
    images: jax.Array | np.ndarray,
    labels: np.ndarray,
    *,
    task: Task | None = None,
    calibration_images: jax.Array | np.ndarray | None = None,
    rules: LayerSpecs | None = None,
    t_seconds: float | jax.Array | None = None,
    compensate: bool = False,
    batch_size: int = EVAL_BATCH,
    at_once: int = 1,
) -> Population:
    """Accuracy of one chip per key: a backbone written onto each, aged if asked, read on the same images.

    All chips have the same input scales and calibrated converter ranges, those of their :func:`design`. The answer is
    that of a loop over ``chip = program(backbone, spec, key, rules=rules)`` with these scales and ranges, then
    ``chip.at(t_seconds)`` and ``predict(chip, task, images, key=jax.random.fold_in(key, 0), batch_size=batch_size)``.

    Args:
        keys: one key per chip, a key array [chips].
        images: uint8 [n, H, W, C]. labels: class indices [n], of the task's head.
        task: what the chips run; ``None`` for the task that the backbone was pretrained on.
        calibration_images: see :func:`design`; never the ones that accuracy is measured on.
        rules: layers with a spec of their own; see ``program``.
        t_seconds: time since programming; ``None`` for right after it, without drift.
        compensate: global drift compensation at ``t_seconds``.
        at_once: chips that are read side by side under ``vmap``, the rest one after another. Batched kernels make a
            convolution a grouped one, slow on CPU: there one at a time is fastest (the default).

    Raises:
        SpecError: keys that are no key array [chips], sizes below 1, a time that :meth:`Chip.at` refuses, or a
            design that needs calibration images and has none. DataError: images or labels that do not fit.
    """
    _check_keys(keys)
    check_int("batch_size", batch_size, 1, 2**31 - 1)
    check_int("at_once", at_once, 1, 2**31 - 1)
    age = None if t_seconds is None else check_age(t_seconds)
    drawn = design(backbone, spec, calibration_images, rules=rules)
    images = check_inputs(drawn, images)
    labels = check_labels("labels", labels, "images", count(images))
    if not count(images):
        raise DataError("images", "0 images", "at least one image to measure accuracy on")
    task = task or source_task(drawn)
    check_label_range("labels", labels, task.num_classes)
    kernels = {path: backbone.kernel(path) for path in drawn.tiles}
    right = _count_right(
        task.method.learned,
        drawn,
        kernels,
        (task.trained, task.state or drawn.stats),
        keys,
        _stacked(images, labels, min(batch_size, count(images))),
        age,
        compensate,
        at_once,
    )
    return Population(np.asarray(right, np.float64) / count(images))


@numpy_promotion
def design(
    backbone: Backbone,
    spec: CrossbarSpec,
    images: jax.Array | np.ndarray | None = None,
    *,
    rules: LayerSpecs | None = None,
) -> Chip:
    """A chip whose input scales and converter ranges are what all chips of ``spec`` are built with.

    What came with the backbone is used where ``program`` uses it (under wires too, though it was measured with ideal
    ones: ``measure_ranges`` measures again). The rest is measured on ``images``, on a *nominal* chip: one of the same
    spec, wires included, whose devices are ideal and whose cells are not stuck. No chip's own errors enter.

    Raises:
        SpecError: something has to be measured, and there are no images.
    """
    key = jax.random.key(0)
    chip = program(backbone, spec, key, rules=rules)
    if chip.calibrated:
        return chip
    if images is None:
        allowed = "images to measure input scales and converter ranges on: what came with the backbone does not cover"
        raise SpecError("calibration_images", None, f"{allowed} this spec")
    ideal = {path: None if own is None else _nominal(own) for path, own in (rules or {}).items()}
    nominal = program(backbone, _nominal(spec), key, rules=ideal)
    measure = calibrate if backbone.calibration is None else measure_ranges
    measured = measure(nominal, images).tiles
    tiles = {}
    for path, layer in chip.tiles.items():
        layer = with_signed_inputs(layer, measured[path].plan.signed_inputs)
        ranges = layer.adc if layer.adc is not None else measured[path].adc
        tiles[path] = layer.replace(input_scale=measured[path].input_scale, adc=ranges)
    return chip.replace(tiles=tiles)


def _check_keys(keys: Any) -> None:
    typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not typed or keys.ndim != 1 or not keys.size:
        raise SpecError("keys", keys, "an array of keys, one per chip: jax.random.split(key, chips)")


def _nominal(spec: CrossbarSpec) -> CrossbarSpec:
    return spec.replace(device=Ideal(), faults=Faults())


def _stacked(images: Any, labels: np.ndarray, size: int) -> tuple[np.ndarray, Any, np.ndarray]:
    """Start, images and labels of batches of one size; what fills the last has label -1, which nothing predicts."""
    parts = list(batches({"images": images, "labels": labels + 1}, size))
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *(part.inputs for part in parts))
    return np.array([part.start for part in parts]), stacked["images"], stacked["labels"] - 1


@partial(jax.jit, static_argnames=("method", "compensate", "at_once"))
def _count_right(
    method: Method,
    drawn: Chip,
    kernels: Mapping[str, jax.Array],
    values: tuple[dict[str, Any], dict[str, Any]],
    keys: jax.Array,
    batches: tuple[jax.Array, jax.Array, jax.Array],
    t_seconds: jax.Array | None,
    compensate: bool,
    at_once: int,
) -> jax.Array:
    """Images that each chip predicts as labelled, int [chips]."""
    trained, stats = values

    def chip_right(key: jax.Array) -> jax.Array:
        chip = another(drawn, kernels, key)
        if t_seconds is not None:
            chip = chip.at(t_seconds, compensate=compensate)

        def batch_right(batch: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            start, images, labels = batch
            read_key = stream(key, 0, start)
            logits, _ = forward(chip, method, trained, stats, images, key=read_key)
            return jnp.sum(jnp.argmax(logits, -1) == labels)

        return jnp.sum(lax.map(batch_right, batches))

    return lax.map(chip_right, keys, batch_size=None if at_once == 1 else at_once)
