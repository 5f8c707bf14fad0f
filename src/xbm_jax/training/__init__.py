"""The loop behind :func:`xbm_jax.adapt`."""

from xbm_jax.training.config import TrainConfig
from xbm_jax.training.learning import adapt, for_chip
from xbm_jax.training.step import TrainState, init_state, loss_and_stats, train_step
from xbm_jax.training.together import adapt_together

__all__ = [
    "TrainConfig",
    "TrainState",
    "adapt",
    "adapt_together",
    "for_chip",
    "init_state",
    "loss_and_stats",
    "train_step",
]
