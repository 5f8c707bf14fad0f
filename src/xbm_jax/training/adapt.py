"""Learning one task on a chip. Read from top to bottom: this is the whole loop.

1. Hold out a stratified validation split of the training images.
2. Train ``task.trained`` for some epochs; after each, measure validation accuracy and keep the best.
3. Measure test accuracy once, with what was kept.

Every random choice (head, split, order, read noise) comes from the key.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.data import Dataset, epoch_batches, eval_batches, made_ahead, resize, split_validation, to_rgb
from xbm_jax.errors import DataError
from xbm_jax.masks import ArrayChoice, Method
from xbm_jax.masks.rules import is_real
from xbm_jax.models import Chip, check_calibrated, check_images, forward, initial_trained
from xbm_jax.tasks import Task, active_columns, adc_clip_rates
from xbm_jax.tasks.task import batch_logits
from xbm_jax.training.choose import choose_arrays
from xbm_jax.training.config import TrainConfig
from xbm_jax.training.step import TrainState, head_epoch, init_state, train_step

__all__ = ["Report", "adapt", "for_chip"]

_CHOICE_BATCHES = 16
"""Batches whose gradient decides which arrays are rewritten."""

Report = Callable[[dict[str, Any]], None]
"""Called after every step with ``epoch, step, steps, loss, accuracy, images_per_second``."""


def for_chip(chip: Chip, data: Dataset, image_size: int | None = None) -> Dataset:
    """The data with images as the chip's backbone takes them: grey repeated to its channels, resized if asked."""
    images = [data.x_train, data.x_test]
    if images[0].shape[-1] == 1 and len(chip.network.preprocess.mean) == 3:
        images = [to_rgb(x) for x in images]
    if image_size is not None:
        images = [resize(x, image_size) for x in images]
    return dataclasses.replace(data, x_train=images[0], x_test=images[1])


def adapt(
    chip: Chip,
    data: Dataset,
    *,
    method: Method,
    key: jax.Array,
    config: TrainConfig | None = None,
    report: Report | None = None,
    start: Task | None = None,
    chips: Callable[[Chip, jax.Array], Chip] | None = None,
) -> Task:
    """Learn ``data`` on ``chip`` without changing the chip.

    Args:
        chip: programmed and calibrated; shared by all tasks.
        data: images and labels; grey images must have been repeated to the chip's channels.
        method: what is learned besides the head.
        key: draws everything random.
        config: epochs, batch size, validation split; the same for every method that is to be compared.
        report: called after every step.
        start: a task whose norms, statistics, head (of as many classes, or ``{}``) and mask logits (if its rule is the
            same) training starts from; ``None``: the chip's norms and a random head.
        chips: ``(chip, key) -> chip``, traceable: the chip of every training step, for masks that hold on many chips
            (``xbm.models.redrawn``). Validation and test are on ``chip`` itself.

    Returns:
        The task. ``task.meta`` holds test and validation accuracy, the history, the share of active columns and the
        ADC clip rate per layer, and the time it took.
    """
    config = config or TrainConfig()
    _check(chip, data, config)
    began = time.perf_counter()
    run = _Run(chip, data, method, config, key, report or (lambda _: None), start, chips)
    cached = method.rule is None and method.norms == "frozen" and config.augment is None and chips is None
    state, history = run.train_head() if cached else run.train()
    best = max(history, key=lambda row: row["val_accuracy"])
    seconds = time.perf_counter() - began
    accuracy = run.accuracy(state, data.x_test, data.y_test)
    own_state = jax.device_get(state.stats) if method.norms == "full" else {}
    task = Task(state.trained, own_state, method)
    meta = {
        "task": data.name,
        "method": method.name,
        "accuracy": accuracy,
        "val_accuracy": best["val_accuracy"],
        "best_epoch": best["epoch"],
        "history": history,
        "class_names": list(data.class_names),
        "images": {"train": len(run.train_index), "validation": len(run.val_index), "test": len(data.y_test)},
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "augment": None if config.augment is None else dataclasses.asdict(config.augment),
        "norm_policy": method.norms,
        "active_columns": active_columns(chip, task),
        "adc_clip_rate": adc_clip_rates(chip, task, run.evaluated(data.x_train[run.val_index[: config.batch_size]])),
        "seconds": seconds,
        "images_per_second": run.seen / max(run.step_seconds, 1e-9),
    }
    return task.replace(meta=meta)


@dataclass
class _Run:
    """One call of :func:`adapt`: what its phases share."""

    chip: Chip
    data: Dataset
    method: Method
    config: TrainConfig
    key: jax.Array
    report: Report
    start: Task | None = None
    chips: Callable[[Chip, jax.Array], Chip] | None = None
    seen: int = 0
    step_seconds: float = 0.0

    def __post_init__(self) -> None:
        head_key, self.noise_key, split_key = jax.random.split(self.key, 3)
        self.seed = int(jax.random.bits(split_key, dtype=jnp.uint32))
        fraction = self.config.validation_fraction
        self.train_index, self.val_index = split_validation(self.data.y_train, fraction, self.seed)
        trained = initial_trained(self.chip, self.method, self.data.num_classes, head_key)
        trained, stats = _started(trained, self.chip.stats, self.method, self.start)
        self.state = init_state(self.method, trained, jax.tree.map(jnp.array, stats))
        self.steps = len(self.order(0))

    def order(self, epoch: int) -> np.ndarray:
        """Image indices of an epoch, int [steps, batch]."""
        return self.train_index[epoch_batches(len(self.train_index), self.config.batch_size, self.seed, epoch)]

    def rate(self, step: int) -> float:
        """The schedule's factor on all learning rates at a step of the whole run."""
        if self.config.schedule == "constant":
            return 1.0
        if self.config.schedule == "step":
            return 1.0 if step < self.steps * (self.config.epochs // 2) else 0.1
        return 0.5 * (1 + math.cos(math.pi * step / (self.steps * self.config.epochs)))

    def train(self) -> tuple[TrainState, list[dict[str, Any]]]:
        """All epochs; the state of the best one by validation accuracy."""
        history: list[dict[str, Any]] = []
        state, best = self.state, self.state
        for epoch in range(self.config.epochs):
            if isinstance(self.method.rule, ArrayChoice) and epoch == self.method.rule.after_epochs:
                state = self.arrays_chosen(state, epoch)
            state, loss = self.train_epoch(state, epoch)
            val = self.accuracy(state, self.data.x_train[self.val_index], self.data.y_train[self.val_index])
            if not history or val > max(row["val_accuracy"] for row in history):
                best = jax.tree.map(jnp.array, state)  # a copy: the next step donates the state's buffers
            history.append({"epoch": epoch, "loss": loss, "val_accuracy": val})
        return best, history

    def train_epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, float]:
        """One pass over the training images, and its mean loss."""
        losses = []
        order = self.order(epoch)
        batches = made_ahead(lambda i: self.augmented(order[i], epoch, i), self.steps)
        for i, (index, images) in enumerate(zip(order, batches, strict=True)):
            step, labels = epoch * self.steps + i, self.data.y_train[index]
            began = time.perf_counter()
            rate = np.float32(self.rate(step))
            step_key = jax.random.fold_in(self.noise_key, step)
            progress = np.float32(step / (self.steps * self.config.epochs))
            state, seen = train_step(
                self.method, self.chip, state, images, labels, rate, step_key, progress, self.chips
            )
            losses.append(float(seen["loss"]))
            if step:  # the first step compiles
                self.step_seconds += time.perf_counter() - began
                self.seen += len(index)
            self.report(
                {
                    "epoch": epoch,
                    "step": step + 1,
                    "steps": self.steps * self.config.epochs,
                    "loss": losses[-1],
                    "accuracy": float(seen["accuracy"]),
                    "images_per_second": self.seen / self.step_seconds if self.step_seconds else 0.0,
                }
            )
        return state, float(np.mean(losses))

    def arrays_chosen(self, state: TrainState, epoch: int) -> TrainState:
        """The state with the arrays chosen that the task rewrites, by the first batches of an epoch."""
        order = self.order(epoch)[:_CHOICE_BATCHES]
        batches = ((self.augmented(index, epoch, i), self.data.y_train[index]) for i, index in enumerate(order))
        return choose_arrays(self.method, self.chip, state, batches, jax.random.fold_in(self.noise_key, 2**31))

    def train_head(self) -> tuple[TrainState, list[dict[str, Any]]]:
        """The head alone: the frozen network is run once over the images, the head learns from its features."""
        began = time.perf_counter()
        x = np.concatenate([self.data.x_train[self.train_index], self.data.x_train[self.val_index]])
        features = jnp.asarray(self.features(x))
        labels = np.concatenate([self.data.y_train[self.train_index], self.data.y_train[self.val_index]])
        count, labels = len(self.train_index), jnp.asarray(labels)
        history: list[dict[str, Any]] = []
        state, best = self.state, self.state
        for epoch in range(self.config.epochs):
            order = epoch_batches(count, self.config.batch_size, self.seed, epoch)
            rates = np.array([self.rate(epoch * self.steps + i) for i in range(self.steps)], np.float32)
            state, loss = head_epoch(self.method, state, features, labels, order, rates)
            head = state.trained["head"]
            guess = jnp.argmax(features[count:] @ head["kernel"] + head["bias"], -1)
            val = float(jnp.mean(guess == labels[count:]))
            if not history or val > max(row["val_accuracy"] for row in history):
                best = state
            history.append({"epoch": epoch, "loss": float(loss), "val_accuracy": val})
        self.step_seconds, self.seen = time.perf_counter() - began, count * self.config.epochs
        return best, history

    def augmented(self, index: np.ndarray, epoch: int, step: int) -> np.ndarray:
        """The training images of a batch, changed as the config asks."""
        images, augment = self.data.x_train[index], self.config.augment
        return images if augment is None else augment.train(images, self.seed, epoch, step)

    def evaluated(self, images: np.ndarray) -> np.ndarray:
        """Images as they are evaluated: their centres where the training images are patches."""
        return images if self.config.augment is None else self.config.augment.evaluate(images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """The head's inputs [n, features] for all images."""
        parts = []
        for index, valid in eval_batches(len(images), self.config.eval_batch_size):
            batch_key = jax.random.fold_in(self.noise_key, index[0])
            batch = _features(self.method, self.chip, self.state.trained, images[index], batch_key)
            parts.append(np.asarray(batch)[:valid])
        return np.concatenate(parts)

    def accuracy(self, state: TrainState, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images predicted as labelled, in evaluation mode."""
        hits = 0
        for index, valid in eval_batches(len(images), self.config.eval_batch_size):
            batch_key = jax.random.fold_in(self.noise_key, index[0])
            logits = batch_logits(
                self.method, self.chip, state.trained, state.stats, self.evaluated(images[index]), batch_key
            )
            hits += int(np.sum(np.argmax(logits, -1)[:valid] == labels[index][:valid]))
        return hits / len(images)


def _started(trained: Any, stats: Any, method: Method, start: Task | None) -> tuple[Any, Any]:
    """What training starts from: of ``start`` what the method trains too, the rest as it is."""
    if start is None:
        return trained, stats
    taken, head = {}, start.trained["head"]
    if head:
        if head["bias"].shape != trained["head"]["bias"].shape:
            allowed = f"{len(trained['head']['bias'])}, those of the task, or none"
            raise DataError("start", f"a head of {start.num_classes} classes", allowed)
        taken["head"] = head
    if trained["norms"] and start.trained["norms"]:
        taken["norms"] = start.trained["norms"]
    values = jax.tree.leaves(start.trained["masks"])
    if start.method.rule == method.rule and all(is_real(leaf) for leaf in values):
        taken["masks"] = start.trained["masks"]
    return {**trained, **jax.tree.map(jnp.array, taken)}, start.state or stats


def _features_of(method: Method, chip: Chip, trained: Any, images: jax.Array, key: jax.Array) -> jax.Array:
    return forward(chip, method, trained, chip.stats, images, key=key, features=True)[0]


_features = jax.jit(_features_of, static_argnums=0)


def _check(chip: Chip, data: Dataset, config: TrainConfig) -> None:
    check_calibrated(chip)
    check_images(chip, data.x_train[:1])
    if len(data.y_train) * (1 - config.validation_fraction) < config.batch_size:
        allowed = f"more than batch_size = {config.batch_size} besides the validation split"
        raise DataError("data.x_train", f"{len(data.y_train)} images", allowed)
