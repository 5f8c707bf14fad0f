"""The chip as it is: masks learned through a bad chip, masks moved to it from an ideal one, and the usual remedies.

    recovered = (accuracy - accuracy_moved) / (accuracy_ideal - accuracy_moved)

accuracy_ideal: masks learned on the ideal chip, tested there. accuracy_moved: the same task on the bad chip. Every row
is an arm tested on the bad chip: the moved task as it is; with norm statistics, converter ranges or both measured again
through the chip; norms alone or the head alone learned on it; masks learned on it, from scratch or from the moved ones;
masks learned with another chip of its kind in every step (not where wires would be folded anew in every step); masks
moved from an ideal chip whose weights were trained with such chips, but ideal wires, on the source task before
programming. No arm writes a cell of a programmed chip. `unseen_mean` and `unseen_std` are over 20 other chips of the
kind.

With the task cifar10 it is the source task that is repaired: nothing is learned on the ideal chip, and every arm starts
from the source's head and norms.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from experiments.suite.chips import CHIPS, ChipKind, backbone_of, chip_of
from experiments.suite.parts import Job, calibration_images, chip_for, data_of, hits, learn, row_of

import xbm_jax as xbm
from xbm_jax.masks import methods
from xbm_jax.models import redrawn

SOURCE = "cifar10"
UNSEEN, UNSEEN_IMAGES = 20, 400
ON_MANY = ("moved", "learned on chip", "learned on a population")


def rows(config: Any, job: Job) -> list[dict[str, Any]]:
    """All arms of one task on one bad chip."""
    data, bad = data_of(config, job), chip_for(config, job)
    ideal, source = _ideal(config, dataclasses.replace(job, chip="ideal"))
    on_ideal = float(np.mean(hits(ideal, source, data)))
    found, moved_task = [], source.replace(chip=None)  # carried to another chip on purpose
    for name, chip, task, seconds in arms(config, job, bad, moved_task, data):
        row = row_of(config, dataclasses.replace(job, method=name), chip, task, data, seconds)
        found.append(row | {"job": job.name} | (unseen(config, job, task, data) if name in ON_MANY else {}))
    reached = {row["method"]: row["accuracy"] for row in found}
    moved, lost = reached["moved"], on_ideal - reached["moved"]
    at = {"accuracy_ideal": on_ideal, "accuracy_moved": moved, "accuracy_learned_on_chip": reached["learned on chip"]}
    for row in found:
        row |= at | {"recovered": (row["accuracy"] - moved) / lost if lost > 0 else None}
    return found


def arms(
    config: Any, job: Job, bad: xbm.Chip, source: xbm.Task, data: xbm.Dataset
) -> Iterator[tuple[str, xbm.Chip, xbm.Task, float]]:
    """(arm, chip, task, seconds of learning); moved first, then remedies, then what is learned on the chip."""
    images, key, kind = xbm.data.calibration_images(data, 512, job.seed), jax.random.key(1), CHIPS[job.chip]
    ranged = xbm.measure_ranges(bad, images)
    yield "moved", bad, source, 0.0
    yield "norms measured", bad, xbm.tasks.with_measured_norms(bad, source, images, key=key), 0.0
    yield "ranges measured", ranged, source, 0.0
    yield "both measured", ranged, xbm.tasks.with_measured_norms(ranged, source, images, key=key), 0.0
    start = source if job.task == SOURCE else None
    learned = [
        ("head only", methods.head_only(), start, None),
        ("norm only", methods.norm_only(), start, None),
        ("learned on chip", methods.xbm(), start, None),
        ("moved, then learned", methods.xbm(), source, None),
    ]
    if kind.spec.wires.ideal:
        learned.append(("learned on a population", methods.xbm(), start, partial(_fresh, kind=kind)))
    for name, method, first, chip_of_step in learned:
        began = time.perf_counter()
        task = learn(config, bad, data, method, job.seed, start=first, chip_of_step=chip_of_step)
        yield name, bad, task, time.perf_counter() - began
    yield ("noise-aware weights, moved", *_noise_aware(config, job))


def unseen(config: Any, job: Job, task: xbm.Task, data: xbm.Dataset) -> dict[str, float]:
    """Accuracy on other chips of the kind."""
    backbone, images = backbone_of(job.backbone, config.data), calibration_images(config, job)
    few = data.subset(len(data.y_train), min(UNSEEN_IMAGES, len(data.y_test)))
    chips = (chip_of(CHIPS[job.chip], backbone, images, 1000 * (job.seed + 1) + i) for i in range(UNSEEN))
    task = task.replace(chip=None)
    found = [float(np.mean(hits(chip, task, few))) for chip in chips]
    return {"unseen_mean": float(np.mean(found)), "unseen_std": float(np.std(found, ddof=1))}


def _fresh(chip: xbm.Chip, key: jax.Array, kind: ChipKind) -> xbm.Chip:
    """Another chip of the same kind and age."""
    return kind.aged(redrawn(chip, key))


@lru_cache(maxsize=1)
def _ideal(config: Any, job: Job) -> tuple[xbm.Chip, xbm.Task]:
    """The ideal chip, and the task with masks learned on it; the same for all bad chips."""
    chip = chip_for(config, job)
    if job.task == SOURCE:
        return chip, xbm.source_task(chip)
    return chip, learn(config, chip, data_of(config, job), methods.xbm(), job.seed)


def _noise_aware(config: Any, job: Job) -> tuple[xbm.Chip, xbm.Task, float]:
    """The bad chip with weights that were trained for its kind, and the task as learned on an ideal chip of them."""
    weights, data = _trained_for(config, dataclasses.replace(job, task=SOURCE)), data_of(config, job)
    ideal, bad = (chip_of(CHIPS[c], weights, calibration_images(config, job), job.seed) for c in ("ideal", job.chip))
    if job.task == SOURCE:
        return bad, xbm.source_task(bad), 0.0
    began = time.perf_counter()
    task = learn(config, ideal, data, methods.xbm(), job.seed).replace(chip=None)
    return bad, task, time.perf_counter() - began


@lru_cache(maxsize=4)
def _trained_for(config: Any, job: Job) -> xbm.Backbone:
    """The backbone, its weights and norms trained further on the source task with another chip in every step."""
    kind, backbone = CHIPS[job.chip], backbone_of(job.backbone, config.data)
    kind = dataclasses.replace(kind, spec=kind.spec.replace(wires=xbm.Wires()))
    chip = chip_of(kind, backbone, calibration_images(config, job), job.seed)
    options = {"start": xbm.source_task(chip), "chip_of_step": partial(_fresh, kind=kind)}
    task = learn(config, chip, data_of(config, job), methods.finetune(), job.seed, **options)
    trained = task.trained
    arrays = dict(backbone.arrays)
    arrays |= {f"{path}/kernel": w.reshape(arrays[f"{path}/kernel"].shape) for path, w in trained["masks"].items()}
    for group in (trained["norms"], task.state):
        arrays |= {f"{path}/{name}": value for path, values in group.items() for name, value in values.items()}
    arrays |= {f"{chip.network.head}/{name}": value for name, value in trained["head"].items()}
    return dataclasses.replace(backbone, arrays=arrays, calibration=None)
