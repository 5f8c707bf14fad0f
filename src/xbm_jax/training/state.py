"""What changes while a task is learned, all of it: a pytree that can be saved, resumed and sharded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

__all__ = ["Kept", "RunState", "TrainState"]


class TrainState(NamedTuple):
    """What changes while a task is learned; a pytree, so that many tasks stack and ``vmap``."""

    trained: dict[str, Any]
    stats: dict[str, Any]
    opt: optax.OptState


class Kept(NamedTuple):
    """What a task would be made of: what was trained, its head padded, and running statistics."""

    trained: dict[str, Any]
    stats: dict[str, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RunState:
    """A run between two steps; of a run and this state alone the rest follows, bit for bit.

    Attributes:
        train: what the next step takes.
        best: of the epoch with the best validation score so far.
        epoch: epochs that are done.
        step: steps that are taken.
        history: mean training loss and validation score of each epoch, float64 [epochs, 2]; NaN where it is not done.
        losses: of the steps taken in an epoch that is not done, float64; none between two epochs.
    """

    train: TrainState
    best: Kept
    epoch: Any
    step: Any
    history: Any
    losses: Any = field(default_factory=lambda: np.zeros(0))

    def replace(self, **changes: Any) -> RunState:
        """A copy with some fields changed."""
        return replace(self, **changes)

    @property
    def best_epoch(self) -> int:
        """The first epoch with the best validation score; -1 before there is one."""
        done = np.asarray(self.history)[: int(self.epoch), 1]
        return int(np.argmax(done)) if len(done) else -1

    def within(self, train: TrainState, losses: Any) -> RunState:
        """The state after as many steps of its epoch as there are losses."""
        step = int(self.step) - len(self.losses) + len(losses)
        return self.replace(train=train, losses=np.asarray(losses, np.float64), step=np.int64(step))

    def after(self, train: TrainState, steps: int, loss: float, score: float) -> RunState:
        """The state after its epoch of so many steps, kept as the best if its score is better than all before."""
        epoch, history = int(self.epoch), np.array(self.history)
        better = bool(np.all(score > history[:epoch, 1]))
        history[epoch] = loss, score
        best = Kept(train.trained, train.stats) if better else self.best
        return RunState(train, best, np.int64(epoch + 1), np.int64(int(self.step) - len(self.losses) + steps), history)
