"""The loop behind :func:`xbm_jax.adapt`."""

from xbm_jax.training.asked import asked_digest
from xbm_jax.training.interrupt import interruptible
from xbm_jax.training.learning import adapt, adapt_together, for_chip
from xbm_jax.training.log import read_log
from xbm_jax.training.loop import advance
from xbm_jax.training.recipe import How, Recipe, Schedule, TrainConfig
from xbm_jax.training.run import Run, begin
from xbm_jax.training.saved import forget
from xbm_jax.training.saves import Saves
from xbm_jax.training.state import RunState, TrainState
from xbm_jax.training.step import Pace, init_state, loss_and_stats, train_step

__all__ = [
    "How",
    "Pace",
    "Recipe",
    "Run",
    "RunState",
    "Saves",
    "Schedule",
    "TrainConfig",
    "TrainState",
    "adapt",
    "adapt_together",
    "advance",
    "asked_digest",
    "begin",
    "for_chip",
    "forget",
    "init_state",
    "interruptible",
    "loss_and_stats",
    "read_log",
    "train_step",
]
