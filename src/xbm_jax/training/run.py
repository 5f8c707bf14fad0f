"""One run of :func:`~xbm_jax.training.learning`: its split, order, rates and keys, its steps, and what it keeps."""

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

from xbm_jax import streams
from xbm_jax.data import Dataset, epoch_batches, eval_batches, made_ahead, split_validation
from xbm_jax.errors import TrainingError
from xbm_jax.masks import ArrayChoice, Method
from xbm_jax.models import Chip, forward, head_logits, initial_trained
from xbm_jax.streams import stream
from xbm_jax.tasks import Task, active_columns, adc_clip_rates, chip_mark
from xbm_jax.tasks.task import batch_logits
from xbm_jax.training.checks import check_arguments, check_fit, check_split, first_not_finite, started
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
    """A task that is being learned: what its phases share. ``place`` tells it from others that are learned with it."""

    chip: Chip
    data: Dataset
    method: Method
    config: TrainConfig
    key: jax.Array
    report: Report | None = None
    start: Task | None = None
    chip_of_step: Callable[[Chip, jax.Array], Chip] | None = None
    place: str = ""
    seen: int = 0
    step_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        given = (self.chip, self.data, self.method, self.key, self.config, self.report, self.start, self.chip_of_step)
        check_arguments(*given)
        check_fit(self.chip, self.data, self.method, self.config)
        self.seed = int(jax.random.bits(self.draw(streams.Run.SEED), dtype=jnp.uint32))
        fraction = self.config.validation_fraction
        self.train_index, self.val_index = split_validation(self.data.y_train, fraction, self.seed, self.data.groups)
        check_split(len(self.data.y_train), len(self.train_index), self.config)
        trained = initial_trained(self.chip, self.method, self.data.num_classes, self.draw(streams.Run.INITIAL))
        trained, stats = started(trained, self.chip.stats, self.method, self.start)
        self.state = self.best = init_state(self.method, trained, jax.tree.map(jnp.array, stats))
        self.steps = len(self.order(0))

    def draw(self, purpose: streams.Run, *numbers: int) -> jax.Array:
        """The key of a purpose, and of the numbers that tell its draws apart."""
        return stream(self.key, purpose, *numbers)

    def order(self, epoch: int) -> np.ndarray:
        """Image indices of an epoch, int [steps, batch]."""
        return self.train_index[epoch_batches(len(self.train_index), self.config.batch_size, self.seed, epoch)]

    def rate(self, step: int) -> float:
        """The schedule's factor on all learning rates at a step of the whole run."""
        if self.config.schedule == "constant":
            return 1.0
        if self.config.schedule == "step":
            return 1.0 if 2 * step < self.steps * self.config.epochs else 0.1
        return 0.5 * (1 + math.cos(math.pi * step / (self.steps * self.config.epochs)))

    def moment(self, step: int) -> tuple[np.float32, jax.Array, np.float32]:
        """Of a step of the whole run: the factor on its rates, its key, and the share of the training done."""
        done = step / (self.steps * self.config.epochs)
        return np.float32(self.rate(step)), self.draw(streams.Run.STEP, step), np.float32(done)

    @property
    def on_features(self) -> bool:
        """Whether nothing but a head on frozen features is learned, which need one pass over the images."""
        frozen = self.method.rule is None and self.method.norms == "frozen"
        return frozen and self.config.augment is None and self.chip_of_step is None

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
            self.end_epoch(state, loss)

    def end_epoch(self, state: TrainState, loss: float) -> None:
        """Measure an epoch's state on the validation images, and keep it if it is the best."""
        self.check_state(state)
        key, index = self.draw(streams.Run.VALIDATION, len(self.history)), self.val_index
        self.keep(state, loss, self.accuracy(state, self.data.x_train[index], self.data.y_train[index], key))

    def keep(self, state: TrainState, loss: float, val: float) -> None:
        """Note an epoch, and keep its state if it is better on the validation images than all before."""
        if all(val > row["val_accuracy"] for row in self.history):
            self.best = jax.tree.map(jnp.array, state)  # a copy: the next step donates the state's buffers
        self.history.append({"epoch": len(self.history), "loss": loss, "val_accuracy": val})

    def check_losses(self, losses: Any, first: int) -> None:
        """Raise TrainingError at the first loss that is not finite; they are those of the steps from ``first`` on."""
        for step, loss in enumerate(np.asarray(losses).tolist(), first):
            if not math.isfinite(loss):
                place = f"step {step + 1} of {self.steps * self.config.epochs}, epoch {step // self.steps + 1}"
                raise self.diverged(f"loss at {place},", loss, step)

    def check_state(self, state: TrainState) -> None:
        """Raise TrainingError if an epoch leaves anything learned, or a running statistic, that is not finite.

        A loss tells of the weights before its step, and of those alone that it depends on: a ReLU may end NaN as zero.
        """
        broken = first_not_finite({"trained": state.trained}) or first_not_finite({"statistics": state.stats})
        if broken is not None:
            taken = (len(self.history) + 1) * self.steps
            raise self.diverged(f"{broken} after epoch {len(self.history) + 1}", "not finite", taken)

    def diverged(self, what: str, value: Any, taken: int) -> TrainingError:
        """The error that says what is not finite after so many steps, and by which rates they were taken."""
        rates = ", ".join(f"{name} = {getattr(self.method, name):g}" for name in ("mask_lr", "norm_lr", "head_lr"))
        cause = f"lower the learning rates, {rates}, times {self.rate(taken - 1):.3g} at the last step"
        allowed = f"finite numbers; {cause if taken else 'no step was taken yet, so look at the chip and at start'}"
        return TrainingError(f"{what} of {self.data.name!r}{self.place}", value, allowed)

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
                self.method, self.chip, state, images, labels, rate, step_key, progress, self.chip_of_step
            )
            losses.append(float(seen["loss"]))
            self.check_losses(losses[-1:], step)
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
        return choose_arrays(self.method, self.chip, state, batches, self.draw(streams.Run.CHOICE))

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
            state, seen = head_epoch(self.method, state, features, labels, order, rates)
            losses = np.asarray(seen, np.float64)
            self.check_losses(losses, epoch * self.steps)
            self.check_state(state)
            right = self.share_right(head_logits(state.trained["head"], features[count:]), labels[count:])
            self.keep(state, float(np.mean(losses)), right)
        self.step_seconds, self.seen = time.perf_counter() - began, count * self.config.epochs

    def task(self, seconds: float) -> Task:
        """The task of the best epoch, measured on the test images; ``seconds``: how long learning took."""
        data, state, method = self.data, self.best, self.method
        best = max(self.history, key=lambda row: row["val_accuracy"])
        accuracy = self.accuracy(state, data.x_test, data.y_test, self.draw(streams.Run.TEST))
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
            "adc_clip_rate": adc_clip_rates(self.chip, task, few, self.draw(streams.Run.PROBE)),
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
        parts, key = [], self.draw(streams.Run.FEATURES)
        for index, valid in eval_batches(len(images), self.config.eval_batch_size):
            batch = _features(self.method, self.chip, self.state.trained, images[index], stream(key, int(index[0])))
            parts.append(np.asarray(batch)[:valid])
        return np.concatenate(parts)

    def accuracy(self, state: TrainState, images: np.ndarray, labels: np.ndarray, key: jax.Array) -> float:
        """Share of images predicted as labelled, in evaluation mode."""
        parts = []
        for index, valid in eval_batches(len(images), self.config.eval_batch_size):
            batch, batch_key = self.evaluated(images[index]), stream(key, int(index[0]))
            logits = batch_logits(self.method, self.chip, state.trained, state.stats, batch, batch_key)
            parts.append(np.asarray(logits)[:valid])
        return self.share_right(np.concatenate(parts), labels)

    def share_right(self, logits: Any, labels: Any) -> float:
        """Share of logits [n, classes] whose largest is the label's; TrainingError if any is not finite."""
        logits = np.asarray(logits)
        broken = int(np.sum(~np.isfinite(logits).all(-1)))
        if broken:  # NaN counts as the largest, the first of several: as a guess that it never was
            taken = min(len(self.history) + 1, self.config.epochs) * self.steps
            raise self.diverged("logits", f"not finite for {broken} of {len(logits)} images", taken)
        return float(np.mean(np.argmax(logits, -1) == np.asarray(labels)))


def _features_of(method: Method, chip: Chip, trained: Any, images: jax.Array, key: jax.Array) -> jax.Array:
    return forward(chip, method, trained, chip.stats, images, key=key, features=True)[0]


_features = jax.jit(_features_of, static_argnums=0)
