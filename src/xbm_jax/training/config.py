"""How a task is learned: the same for every method, so that methods can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xbm_jax.crossbar.validate import check_choice, keep_int, keep_number
from xbm_jax.data import Augment
from xbm_jax.errors import SpecError
from xbm_jax.tasks.task import EVAL_BATCH

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """Settings of the training loop; learning rates belong to the method.

    Args:
        epochs: passes over the training images.
        batch_size: images per step; the rest of an epoch that does not fill a batch is left out.
        validation_fraction: share of the training split held out, stratified, to choose the best epoch.
        schedule: ``"cosine"`` from the method's learning rate to zero over all steps, ``"step"``: a tenth of it in the
            second half of the steps, however many epochs they are, or ``"constant"``.
        eval_batch_size: images per evaluation step.
        augment: what is done to training images, anew in every epoch; ``None`` takes them as they are.
    """

    epochs: int = 10
    batch_size: int = 32
    validation_fraction: float = 0.15
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    eval_batch_size: int = EVAL_BATCH
    augment: Augment | None = None

    def __post_init__(self) -> None:
        keep_int(self, "epochs", 1, 100_000)
        keep_int(self, "batch_size", 2, 65_536)
        keep_number(self, "validation_fraction", low=0.0, high=0.9, open_low=True)
        check_choice("TrainConfig.schedule", self.schedule, ("cosine", "step", "constant"))
        keep_int(self, "eval_batch_size", 1, 65_536)
        if not isinstance(self.augment, Augment | None):
            raise SpecError("TrainConfig.augment", self.augment, "an Augment, or None")
