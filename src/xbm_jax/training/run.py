"""One run of :func:`~xbm_jax.training.adapt`: its split, order, rates and keys, its steps, and what it keeps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.data import Dataset, epoch_batches, eval_batches, made_ahead, split_validation
from xbm_jax.errors import DataError
from xbm_jax.masks import ArrayChoice, Method
from xbm_jax.masks.rules import is_real
from xbm_jax.models import Chip, check_calibrated, check_images, forward, initial_trained
from xbm_jax.tasks import Task, active_columns, adc_clip_rates, chip_mark
from xbm_jax.tasks.task import batch_logits
from xbm_jax.training.choose import choose_arrays
from xbm_jax.training.config import TrainConfig
from xbm_jax.training.step import TrainState, head_epoch, init_state, train_step

__all__ = ["Report", "Run"]

_CHOICE_BATCHES = 16
"""Batches whose gradient decides which arrays are rewritten."""

Report = Callable[[dict[str, Any]], None]
"""Called after every step with ``epoch, step, steps, loss, accuracy, images_per_second``."""


@dataclass
class Run:
    """A task that is being learned: what its phases share."""

    chip: Chip
    data: Dataset
    method: Method
    config: TrainConfig
    key: jax.Array
    report: Report | None = None
    start: Task | None = None
    chips: Callable[[Chip, jax.Array], Chip] | None = None
    seen: int = 0
    step_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check(self.chip, self.data, self.config)
        head_key, self.noise_key, split_key = jax.random.split(self.key, 3)
        self.seed = int(jax.random.bits(split_key, dtype=jnp.uint32))
        fraction = self.config.validation_fraction
        self.train_index, self.val_index = split_validation(self.data.y_train, fraction, self.seed)
        trained = initial_trained(self.chip, self.method, self.data.num_classes, head_key)
        trained, stats = _started(trained, self.chip.stats, self.method, self.start)
        self.state = self.best = init_state(self.method, trained, jax.tree.map(jnp.array, stats))
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

    def moment(self, step: int) -> tuple[np.float32, jax.Array, np.float32]:
        """Of a step of the whole run: the factor on its rates, its key, and the share of the training done."""
        done = step / (self.steps * self.config.epochs)
        return np.float32(self.rate(step)), jax.random.fold_in(self.noise_key, step), np.float32(done)

    @property
    def on_features(self) -> bool:
        """Whether nothing but a head on frozen features is learned, which need one pass over the images."""
        frozen = self.method.rule is None and self.method.norms == "frozen"
        return frozen and self.config.augment is None and self.chips is None

    def learn(self) -> None:
        """All epochs, the short way where there is one."""
        if self.on_features:
            self.train_head()
        else:
            self.train()

    def train(self) -> None:
        """All epochs, through the network."""
        state = self.state
        for epoch in range(self.config.epochs):
            if isinstance(self.method.rule, ArrayChoice) and epoch == self.method.rule.after_epochs:
                state = self.arrays_chosen(state, epoch)
            state, loss = self.train_epoch(state, epoch)
            self.keep(state, loss, self.validated(state))

    def validated(self, state: TrainState) -> float:
        """Accuracy on the validation images."""
        return self.accuracy(state, self.data.x_train[self.val_index], self.data.y_train[self.val_index])

    def keep(self, state: TrainState, loss: float, val: float) -> None:
        """Note an epoch, and keep its state if it is better on the validation images than all before."""
        if all(val > row["val_accuracy"] for row in self.history):
            self.best = jax.tree.map(jnp.array, state)  # a copy: the next step donates the state's buffers
        self.history.append({"epoch": len(self.history), "loss": loss, "val_accuracy": val})

    def train_epoch(self, state: TrainState, epoch: int) -> tuple[TrainState, float]:
        """One pass over the training images, and its mean loss."""
        losses = []
        order = self.order(epoch)
        batches = made_ahead(lambda i: self.augmented(order[i], epoch, i), self.steps)
        for i, (index, images) in enumerate(zip(order, batches, strict=True)):
            step, labels = epoch * self.steps + i, self.data.y_train[index]
            began = time.perf_counter()
            rate, step_key, progress = self.moment(step)
            state, seen = train_step(
                self.method, self.chip, state, images, labels, rate, step_key, progress, self.chips
            )
            losses.append(float(seen["loss"]))
            self.tell(step, losses[-1], float(seen["accuracy"]), time.perf_counter() - began)
        return state, float(np.mean(losses))

    def tell(self, step: int, loss: float, accuracy: float, seconds: float) -> None:
        """Count a step of the whole run and report it."""
        if step:  # the first step compiles
            self.step_seconds += seconds
            self.seen += self.config.batch_size
        if self.report is not None:
            rate = self.seen / self.step_seconds if self.step_seconds else 0.0
            at = {"epoch": step // self.steps, "step": step + 1, "steps": self.steps * self.config.epochs}
            self.report({**at, "loss": loss, "accuracy": accuracy, "images_per_second": rate})

    def arrays_chosen(self, state: TrainState, epoch: int) -> TrainState:
        """The state with the arrays chosen that the task rewrites, by the first batches of an epoch."""
        order = self.order(epoch)[:_CHOICE_BATCHES]
        batches = ((self.augmented(index, epoch, i), self.data.y_train[index]) for i, index in enumerate(order))
        return choose_arrays(self.method, self.chip, state, batches, jax.random.fold_in(self.noise_key, 2**31))

    def train_head(self) -> None:
        """The head alone: the frozen network is run once over the images, the head learns from its features."""
        began = time.perf_counter()
        x = np.concatenate([self.data.x_train[self.train_index], self.data.x_train[self.val_index]])
        features = jnp.asarray(self.features(x))
        labels = np.concatenate([self.data.y_train[self.train_index], self.data.y_train[self.val_index]])
        count, labels, state = len(self.train_index), jnp.asarray(labels), self.state
        for epoch in range(self.config.epochs):
            order = epoch_batches(count, self.config.batch_size, self.seed, epoch)
            rates = np.array([self.rate(epoch * self.steps + i) for i in range(self.steps)], np.float32)
            state, loss = head_epoch(self.method, state, features, labels, order, rates)
            head = state.trained["head"]
            guess = jnp.argmax(features[count:] @ head["kernel"] + head["bias"], -1)
            self.keep(state, float(loss), float(jnp.mean(guess == labels[count:])))
        self.step_seconds, self.seen = time.perf_counter() - began, count * self.config.epochs

    def task(self, seconds: float) -> Task:
        """The task of the best epoch, measured on the test images; ``seconds``: how long learning took."""
        data, state, method = self.data, self.best, self.method
        best = max(self.history, key=lambda row: row["val_accuracy"])
        accuracy = self.accuracy(state, data.x_test, data.y_test)
        own_state = jax.device_get(state.stats) if method.norms == "full" else {}
        task = Task(state.trained, own_state, method, chip=chip_mark(self.chip))
        few = self.evaluated(data.x_train[self.val_index[: self.config.batch_size]])
        sizes = {"train": len(self.train_index), "validation": len(self.val_index), "test": len(data.y_test)}
        meta = {
            "task": data.name,
            "method": method.name,
            "accuracy": accuracy,
            "val_accuracy": best["val_accuracy"],
            "best_epoch": best["epoch"],
            "history": self.history,
            "class_names": list(data.class_names),
            "images": sizes,
            "epochs": self.config.epochs,
            "batch_size": self.config.batch_size,
            "augment": None if self.config.augment is None else dataclasses.asdict(self.config.augment),
            "norm_policy": method.norms,
            "active_columns": active_columns(self.chip, task),
            "adc_clip_rate": adc_clip_rates(self.chip, task, few),
            "seconds": seconds,
            "images_per_second": self.seen / max(self.step_seconds, 1e-9),
        }
        return task.replace(meta=meta)

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
