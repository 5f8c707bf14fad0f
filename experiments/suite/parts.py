"""What the jobs of all comparisons share: task, chip, the rules of learning, and the row that tells of it."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from experiments.resume import adapt
from experiments.suite.chips import CHIPS, backbone_of, chip_of
from experiments.tasks import local_task

import xbm_jax as xbm
from xbm_jax.examples import take
from xbm_jax.masks import Method

PIXELS = {"cifar-resnet20": 32, "mobilenet-v2": 112, "resnet50-v1": 112}


@dataclass(frozen=True)
class Job:
    """One place in the grid."""

    comparison: str
    backbone: str
    task: str
    chip: str
    method: str
    seed: int

    @property
    def name(self) -> str:
        """Tells it from all others of its comparison."""
        return f"{self.backbone} {self.task} {self.chip} {self.method} {self.seed}"


def learn(config: Any, chip: xbm.Chip, data: xbm.Dataset, method: Method, seed: int, **options: Any) -> xbm.Task:
    """The task, by the rules that all comparisons share."""
    return adapt(config.out, chip, data, method=method, key=jax.random.key(seed), config=config.training, **options)


def chip_for(config: Any, job: Job, arrays: Mapping[str, int] | None = None) -> xbm.Chip:
    """The job's chip, ready to read: the same for all its methods, but for ``arrays`` of another form."""
    kind = CHIPS[job.chip]
    if arrays:
        kind = dataclasses.replace(kind, spec=kind.spec.replace(**arrays))
    backbone = backbone_of(job.backbone, config.data)
    return chip_of(kind, backbone, calibration_images(config, job), job.seed, lines=job.method == "xbm_lines")


def calibration_images(config: Any, job: Job) -> np.ndarray:
    """Training images of the job's task that ranges are measured on, where none came with the backbone."""
    return xbm.data.calibration_images(data_of(config, job), seed=job.seed)


def data_of(config: Any, job: Job) -> xbm.Dataset:
    """The job's task at the backbone's size, with the images that every method learns from."""
    return _data(config.data, config.images, job.task, job.backbone, job.seed)


@lru_cache(maxsize=2)
def _data(folder: Any, images: int, task: str, backbone: str, seed: int) -> xbm.Dataset:
    size = PIXELS[backbone]
    data = local_task(task, folder, size)
    if data.x_train.shape[-1] == 1:
        data = dataclasses.replace(data, x_train=xbm.data.to_rgb(data.x_train), x_test=xbm.data.to_rgb(data.x_test))
    if images >= len(data.y_train):
        return data
    chosen = np.random.default_rng(seed).permutation(xbm.data.stratified_sample(data.y_train, images, seed))
    groups = None if data.groups is None else data.groups[chosen]
    return dataclasses.replace(data, x_train=data.x_train[chosen], y_train=data.y_train[chosen], groups=groups)


def row_of(config: Any, job: Job, chip: xbm.Chip, task: xbm.Task, data: xbm.Dataset, seconds: float) -> dict[str, Any]:
    """What learning gave and cost, of the task as a bank keeps it.

    ``hits``: which test images are right, a bit each, for paired intervals. ``source_accuracy``: of the source network
    on this very chip, where its test images are at hand.
    """
    task = xbm.tasks.compact(chip, task)
    bits, right = xbm.hardware.task_bits(chip, task), hits(chip, task, data)
    return {
        "job": job.name,
        "suite": job.comparison,
        "backbone": job.backbone,
        "task": job.task,
        "method": job.method,
        "chip": job.chip,
        "seed": job.seed,
        "norm_policy": task.method.norms,
        "accuracy": float(np.mean(right)),
        "val_accuracy": task.meta.get("val_accuracy"),
        "mask_bits": bits.mask_bits,
        "norm_bits": bits.norm_bits,
        "head_bits": bits.head_bits,
        "weight_bits_stored": bits.weight_bits_stored,
        "cells_written": xbm.hardware.task_cells_written(chip, task),
        "images": len(data.y_train),
        "epochs": config.epochs,
        "seconds": round(seconds, 1),
        "test_images": len(data.y_test),
        "hits": coded(right),
        "source_accuracy": source_accuracy(config, job, chip),
        **energies(chip, task, data),
    }


def energies(chip: xbm.Chip, task: xbm.Task, data: xbm.Dataset) -> dict[str, Any]:
    """What the task costs by the usual technology; nothing where that has no model of the chip's converters."""
    if not chip.tiles or not {"epochs", "batch_size", "images"} <= task.meta.keys():
        return {}
    try:
        return xbm.hardware.cost_summary(chip, task, take(data.x_test, slice(1)))._asdict()
    except xbm.SpecError:
        return {}


SOURCES = {"cifar-resnet20": "cifar10"}
_SOURCE: dict[Any, float] = {}


def source_accuracy(config: Any, job: Job, chip: xbm.Chip) -> float | None:
    """How well the source network survives on the chip: its accuracy on its own test images; ``None`` without them."""
    # The chip itself: a job may be on several, with other weights or ranges; of one make and age, its kind says which.
    source, at = SOURCES.get(job.backbone), (job.chip, xbm.tasks.chip_mark(chip))
    if source is None or not (config.data / f"{source}.npz").is_file():
        return None
    if at not in _SOURCE:
        data = data_of(config, dataclasses.replace(job, task=source))
        _SOURCE[at] = float(np.mean(hits(chip, xbm.source_task(chip), data)))
    return _SOURCE[at]


def hits(chip: xbm.Chip, task: xbm.Task, data: xbm.Dataset, seed: int = 0) -> np.ndarray:
    """Which test images are predicted as labelled, bool."""
    return np.argmax(xbm.predict(chip, task, data.x_test, key=jax.random.key(seed)), -1) == data.y_test


def coded(right: np.ndarray) -> str:
    """A bit an image, as text."""
    return base64.b64encode(np.packbits(right).tobytes()).decode()


def decoded(text: str, count: int) -> np.ndarray:
    """Undo :func:`coded`."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=count).astype(bool)
