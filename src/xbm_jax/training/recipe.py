"""How a task is learned: the same for every method, so that methods can be compared."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from xbm_jax.crossbar.validate import UNLESS_DEFAULT, check_choice, keep_int, keep_number
from xbm_jax.data import Augment
from xbm_jax.errors import SpecError
from xbm_jax.masks import Budget, Method
from xbm_jax.tasks import Classification, Objective
from xbm_jax.tasks.evaluation import EVAL_BATCH

__all__ = ["How", "Recipe", "Schedule", "TrainConfig"]

_KINDS = ("cosine", "step", "constant")


@dataclass(frozen=True)
class Schedule:
    """Factor on a learning rate in the course of training.

    Args:
        kind: ``"cosine"`` from one to zero, ``"step"``: a tenth in the second half, however many epochs there are, or
            ``"constant"``; all over the first ``until`` of the steps.
        until: share of the steps after which the rate is zero, in (0, 1].
    """

    kind: Literal["cosine", "step", "constant"] = "cosine"
    until: float = 1.0

    def __post_init__(self) -> None:
        check_choice("Schedule.kind", self.kind, _KINDS)
        keep_number(self, "until", low=0.0, high=1.0, open_low=True)

    def factor(self, step: int, steps: int) -> float:
        """At a step, from 0 on, of so many."""
        steps_here = steps * self.until
        if step >= steps_here:
            return 0.0
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            return 1.0 if 2 * step < steps_here else 0.1
        return 0.5 * (1 + math.cos(math.pi * step / steps_here))


@dataclass(frozen=True)
class How:
    """What of a recipe decides a program; rates, schedules and lengths are numbers that it is given."""

    optimizer: Literal["adam", "sgd"] = "adam"
    objective: Objective = field(default_factory=Classification)
    mask_eps: float | None = None
    budget: Budget | None = None


@dataclass(frozen=True)
class Recipe:
    """How a task is learned; rates that are ``None`` are the method's own.

    Args:
        epochs: passes over the training examples.
        batch_size: examples per step; the rest of an epoch that does not fill a batch is left out.
        validation_fraction: share of the training split held out, stratified, to choose the best epoch.
        schedule: of all rates: a :class:`Schedule`, or the kind of one over all steps.
        eval_batch_size: examples per evaluation step.
        augment: what is done to training images, anew in every epoch; ``None`` takes them as they are.
        mask_schedule: of the rule's values; ``None``: as ``schedule``.
        mask_lr: learning rate of the rule's values.
        norm_lr: likewise of norm scales and biases.
        head_lr: likewise of the head.
        optimizer: ``"adam"`` (b1 0.9, b2 0.999, eps 1e-8) or ``"sgd"`` (momentum 0.9); ``None``: the method's.
        objective: loss, score and prediction.
        budget: a price on columns that count, for methods whose masks are their gains; ``None``: they cost nothing.
    """

    epochs: int = 10
    batch_size: int = 32
    validation_fraction: float = 0.15
    schedule: Schedule | Literal["cosine", "step", "constant"] = "cosine"
    eval_batch_size: int = EVAL_BATCH
    augment: Augment | None = None
    mask_schedule: Schedule | None = None
    mask_lr: float | None = None
    norm_lr: float | None = None
    head_lr: float | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    objective: Objective = field(default_factory=Classification)
    budget: Budget | None = field(default=None, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        keep_int(self, "epochs", 1, 100_000)
        keep_int(self, "batch_size", 2, 65_536)
        keep_number(self, "validation_fraction", low=0.0, high=0.9, open_low=True)
        if not isinstance(self.schedule, Schedule):
            check_choice("Recipe.schedule", self.schedule, _KINDS)
        if not isinstance(self.mask_schedule, Schedule | None):
            raise SpecError("Recipe.mask_schedule", self.mask_schedule, "a Schedule, or None")
        keep_int(self, "eval_batch_size", 1, 65_536)
        if not isinstance(self.augment, Augment | None):
            raise SpecError("Recipe.augment", self.augment, "an Augment, or None")
        for name in ("mask_lr", "norm_lr", "head_lr"):
            if getattr(self, name) is not None:
                keep_number(self, name, low=0.0, high=3e38)  # what a float32 holds
        if self.optimizer is not None:
            check_choice("Recipe.optimizer", self.optimizer, ("adam", "sgd"))
        if not isinstance(self.objective, Objective):
            raise SpecError("Recipe.objective", self.objective, "an Objective, such as xbm.tasks.Classification()")
        if not isinstance(self.budget, Budget | None):
            raise SpecError("Recipe.budget", self.budget, "a Budget, or None")

    def how(self, method: Method) -> How:
        """What decides the program of a method's steps."""
        return How(self.optimizer or method.optimizer, self.objective, method.mask_eps, self.budget)

    def rates(self, method: Method, steps: int) -> dict[str, float]:
        """Learning rates by group, of a training of so many steps."""
        return {
            "masks": method.mask_rate(steps) if self.mask_lr is None else self.mask_lr,
            "norms": method.norm_lr if self.norm_lr is None else self.norm_lr,
            "head": method.head_lr if self.head_lr is None else self.head_lr,
        }

    def factors(self, method: Method, step: int, steps: int) -> dict[str, float]:
        """What the rates are multiplied by at a step of all, by group; a rule's values may have to stand before."""
        common = self.schedule if isinstance(self.schedule, Schedule) else Schedule(self.schedule)
        masks = self.mask_schedule or common
        if method.rule is not None:
            masks = replace(masks, until=min(masks.until, method.rule.until))
        rest = common.factor(step, steps)
        return {"masks": masks.factor(step, steps), "norms": rest, "head": rest}


TrainConfig = Recipe
"""The name that :class:`Recipe` had."""
