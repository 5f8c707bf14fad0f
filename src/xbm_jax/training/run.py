"""One run of :func:`~xbm_jax.training.adapt`: what it is given, and what follows from it: split, order, pace, keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax import streams
from xbm_jax.data import Dataset, epoch_batches, split_validation
from xbm_jax.examples import chosen, take
from xbm_jax.layout import Layout
from xbm_jax.masks import Method
from xbm_jax.models import Chip, initial_trained
from xbm_jax.streams import stream
from xbm_jax.tasks import Task
from xbm_jax.tasks.evaluation import features, padded
from xbm_jax.training.checks import check_arguments, check_fit, check_split, started
from xbm_jax.training.recipe import How, Recipe
from xbm_jax.training.state import Kept, RunState
from xbm_jax.training.step import ChipOfStep, Pace, init_state

__all__ = ["Report", "Run", "begin", "examples_of", "test_examples"]

Report = Callable[[dict[str, Any]], None]
"""Called for every step, up to eight steps later, with ``epoch, step, steps, loss, accuracy, images_per_second``."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a task is learned from. Nothing is computed before it is asked for; what changes is a :class:`RunState`.

    ``place`` tells it from others that are learned with it.
    """

    chip: Chip
    data: Dataset
    method: Method
    recipe: Recipe
    key: jax.Array
    report: Report | None = None
    start: Task | None = None
    chip_of_step: ChipOfStep | None = None
    place: str = ""
    layout: Layout = field(default_factory=Layout)

    def check(self) -> None:
        """Raise unless all of it goes together."""
        given = (self.chip, self.data, self.method, self.key, self.recipe, self.report, self.start, self.chip_of_step)
        check_arguments(*given)
        check_fit(self.chip, self.data, self.method, self.recipe)
        check_split(len(self.data.y_train), len(self.train_index), self.recipe)

    def draw(self, purpose: streams.Run, *numbers: int) -> jax.Array:
        """The key of a purpose, and of the numbers that tell its draws apart."""
        return stream(self.key, purpose, *numbers)

    @cached_property
    def placed_chip(self) -> Chip:
        """The chip on every device of the mesh."""
        return self.layout.everywhere(self.chip)

    @cached_property
    def seed(self) -> int:
        """Of everything that is drawn on the host."""
        return int(jax.random.bits(self.draw(streams.Run.SEED), dtype=jnp.uint32))

    @cached_property
    def split(self) -> tuple[np.ndarray, np.ndarray]:
        """Training and validation examples."""
        return split_validation(self.data.strata, self.recipe.validation_fraction, self.seed, self.data.groups)

    @property
    def train_index(self) -> np.ndarray:
        """The examples that are trained on."""
        return self.split[0]

    @property
    def val_index(self) -> np.ndarray:
        """The examples that an epoch is chosen on."""
        return self.split[1]

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return len(self.train_index) // self.recipe.batch_size

    @property
    def all_steps(self) -> int:
        """Steps of the whole run."""
        return self.steps * self.recipe.epochs

    @cached_property
    def outputs(self) -> int:
        """Outputs that the task asks of its head."""
        return self.recipe.objective.outputs(self.data)

    @property
    def how(self) -> How:
        """What of recipe and method decides the program of a step, beside ``method.learned``."""
        return self.recipe.how(self.method)

    @property
    def on_features(self) -> bool:
        """Whether nothing but a head on frozen features is learned, which need one pass over the examples."""
        frozen = self.method.rule is None and self.method.norms == "frozen"
        return frozen and self.recipe.augment is None and self.chip_of_step is None

    @cached_property
    def features(self) -> tuple[jax.Array, jax.Array]:
        """The head's inputs for training examples, then for validation examples, and the targets."""
        index = np.concatenate([self.train_index, self.val_index])
        trained, inputs = {"masks": {}, "norms": {}}, chosen(self.data.x_train, index)
        key, size = self.draw(streams.Run.FEATURES), self.recipe.eval_batch_size
        given = (self.placed_chip, self.method, trained, self.chip.stats, inputs, key)
        found = features(*given, batch_size=size, layout=self.layout)
        return jnp.asarray(found), jnp.asarray(self.data.y_train[index])

    def order(self, epoch: int) -> np.ndarray:
        """Examples of an epoch, int [steps, batch]."""
        return self.train_index[epoch_batches(len(self.train_index), self.recipe.batch_size, self.seed, epoch)]

    def pace(self, step: int) -> Pace:
        """The numbers of a step of the whole run."""
        factors = self.recipe.factors(self.method, step, self.all_steps)
        rates = self.recipe.rates(self.method, self.all_steps)
        return Pace(
            rates={group: np.float32(rate) for group, rate in rates.items()},
            factors={group: np.float32(factor) for group, factor in factors.items()},
            progress=np.float32(step / self.all_steps),
            outputs=np.int32(self.outputs),
        )

    def batch(self, index: np.ndarray, epoch: int, step: int, rows: slice = slice(None)) -> tuple[Any, np.ndarray]:
        """Training inputs and targets of a step of an epoch, or some rows of them, changed as the recipe asks."""
        own, augment = index[rows], self.recipe.augment
        inputs = take(self.data.x_train, own)
        if augment is not None:
            inputs = augment.train(inputs, self.seed, epoch, step, rows=rows, batch=len(index))
        return inputs, self.data.y_train[own]

    def evaluated(self, inputs: Any) -> Any:
        """Inputs as they are evaluated: images' centres where the training images are patches."""
        return inputs if self.recipe.augment is None else self.recipe.augment.evaluate(inputs)


def begin(run: Run) -> RunState:
    """The state before the first step."""
    trained = initial_trained(run.chip, run.method, run.outputs, run.draw(streams.Run.INITIAL))
    trained, stats = started(trained, run.chip.stats, run.method, run.start)
    # Copies: a step donates its state's buffers, and the chip's are not its own.
    trained, stats = padded(run.method, trained), jax.tree.map(jnp.array, stats)
    train, kept = run.layout.everywhere((init_state(run.how, trained, stats), Kept(trained, stats)))
    return RunState(train, kept, np.int64(0), np.int64(0), np.full((run.recipe.epochs, 2), np.nan))


def examples_of(run: Run, index: np.ndarray) -> tuple[Any, np.ndarray]:
    """Training examples as they are evaluated, and their targets."""
    return run.evaluated(chosen(run.data.x_train, index)), run.data.y_train[index]


def test_examples(run: Run) -> tuple[Any, np.ndarray]:
    """The test examples as they are evaluated, and their targets."""
    return run.evaluated(run.data.x_test), run.data.y_test
