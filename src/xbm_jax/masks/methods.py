"""Adaption methods: what a task learns. Each is a rule for the crossbar layers, a norm policy and a head.

How it is learned is a recipe's (:class:`xbm_jax.training.Recipe`); a method carries the rates that suit it, which a
recipe takes where it names none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from xbm_jax.crossbar.validate import check_int, keep_number
from xbm_jax.errors import MethodError
from xbm_jax.masks.alphabet import Alphabet, Binary, Shift, Soft, Ternary
from xbm_jax.masks.arrays import ArrayChoice
from xbm_jax.masks.estimator import Annealed, Estimator, Identity, Sigmoid
from xbm_jax.masks.granularity import Column, Granularity, Kernel, Line, Weight
from xbm_jax.masks.heads import Head, Linear
from xbm_jax.masks.levels import Levels
from xbm_jax.masks.lowrank import LowRank
from xbm_jax.masks.rules import Masked, Rewritten, Rule

__all__ = [
    "METHODS",
    "Method",
    "NormPolicy",
    "by_name",
    "finetune",
    "head_only",
    "ksm_binary",
    "ksm_soft",
    "lora",
    "masked",
    "norm_only",
    "piggyback",
    "piggyback_ternary",
    "xbm",
    "xbm_levels",
    "xbm_lines",
    "xma",
    "xma2",
]

NormPolicy = Literal["frozen", "affine", "full"]


@dataclass(frozen=True)
class Method:
    """What a task learns. The head is always learned.

    Args:
        name: how tables call it.
        rule: what happens to crossbar layers; ``None`` leaves them as programmed.
        norms: ``"frozen"``: the backbone's; ``"affine"``: scale and bias are learned, running statistics stay;
            ``"full"``: scale and bias are learned, batch statistics in training, running statistics follow.
        mask_lr: learning rate that suits the rule's values.
        mask_lr_steps: of how many steps; of S steps it is ``mask_lr * sqrt(mask_lr_steps / S)``, so that noise alone
            moves a value as far however long training is. ``None``: of any number.
        norm_lr: likewise for norm scales and biases.
        head_lr: likewise for the head.
        optimizer: ``"adam"``, or ``"sgd"`` with a momentum of 0.9, where a recipe names none.
        mask_eps: Adam's epsilon for the rule's values, in units of the root mean square of all their gradients in a
            step; ``None``: 1e-8 as they are. Batch norm undoes the gain of a column that has no other tile, so that its
            mask's gradient is rounding error, which Adam alone would take for a direction.
        head: from features to the task's outputs.
    """

    name: str
    rule: Rule | None = None
    norms: NormPolicy = "full"
    mask_lr: float = 1e-3
    norm_lr: float = 1e-2
    head_lr: float = 1e-2
    optimizer: Literal["adam", "sgd"] = "adam"
    mask_eps: float | None = None
    mask_lr_steps: int | None = None
    head: Head = field(default_factory=Linear)

    def __post_init__(self) -> None:
        if self.norms not in ("frozen", "affine", "full"):
            raise MethodError("Method.norms", self.norms, "one of 'frozen', 'affine', 'full'")
        for name in ("mask_lr", "norm_lr", "head_lr"):
            keep_number(self, name, low=0.0, high=3e38)  # what a float32 holds
        if self.mask_eps is not None:
            keep_number(self, "mask_eps", low=0.0, high=1.0, open_low=True)
        if self.mask_lr_steps is not None:
            object.__setattr__(self, "mask_lr_steps", check_int("Method.mask_lr_steps", self.mask_lr_steps, 1, 10**9))
        if self.optimizer not in ("adam", "sgd"):
            raise MethodError("Method.optimizer", self.optimizer, "one of 'adam', 'sgd'")
        if not isinstance(self.head, Head):
            raise MethodError("Method.head", self.head, "a Head, such as Linear()")

    def mask_rate(self, steps: int) -> float:
        """The rule's learning rate in a training of so many steps."""
        return self.mask_lr * (1.0 if self.mask_lr_steps is None else math.sqrt(self.mask_lr_steps / steps))

    @property
    def learned(self) -> Method:
        """What of the method decides a program: rule, norm policy and head, under no name and with no rates."""
        return Method("", self.rule, self.norms, head=self.head)

    @property
    def rewrites_cells(self) -> bool:
        """Whether switching to a task of this method writes cells."""
        return self.rule is not None and self.rule.rewrites_cells

    @property
    def computes_beside(self) -> bool:
        """Whether a task of this method adds a digital product to what the arrays answer."""
        return self.rule is not None and self.rule.computes_beside


def masked(
    name: str, granularity: Granularity, alphabet: Alphabet, estimator: Estimator, start: float = 1e-2, **options: Any
) -> Method:
    """A method of one's own: what shares a mask value, which values there are, and the gradient of the decision."""
    return Method(name, Masked(granularity, alphabet, estimator, start), **options)


def head_only() -> Method:
    """Only a new head: the floor."""
    return Method("head_only", norms="frozen")


def norm_only(norms: NormPolicy = "full") -> Method:
    """A new head and norms: the control of every method that trains norms."""
    return Method("norm_only", norms=norms)


def xbm(
    norms: NormPolicy = "full",
    estimator: Literal["annealed", "identity", "sigmoid"] = "annealed",
    lr: float | None = None,
) -> Method:
    """Crossbar column-wise binary masks (Zhang 2022): one bit per row tile and output channel; no cell is written.

    Args:
        norms: norm policy.
        estimator: ``"annealed"``: gains that harden (:class:`~xbm_jax.masks.Annealed`), at a rate that follows from the
            number of steps; or the straight-through ones of Piggyback and KSM, at any number.
        lr: mask rate; by default 3e-2 of 528 steps, or 1e-3.
    """
    straight: dict[str, Estimator] = {"identity": Identity(), "sigmoid": Sigmoid()}
    if estimator == "annealed":
        return _hardening("xbm", _soft(Column()), norms, 3e-2 if lr is None else lr)
    if estimator not in straight:
        raise MethodError("xbm.estimator", estimator, "one of " + ", ".join(map(repr, ("annealed", *straight))))
    return masked("xbm", Column(), Binary(), straight[estimator], norms=norms, mask_lr=1e-3 if lr is None else lr)


def xbm_levels(norms: NormPolicy = "full", lr: float = 3e-2, low: float = 0.2) -> Method:
    """XBM whose off columns count times a level of the layer, learned; they are converted as all others are."""
    return _hardening("xbm_levels", Levels(_soft(Column(), start=0.05), low), norms, lr)


def xbm_lines(norms: NormPolicy = "full", lr: float = 3e-2) -> Method:
    """XBM with each source line of a pair gated apart: two bits a column; no cell is written."""
    return _hardening("xbm_lines", _soft(Line()), norms, lr)


def _soft(granularity: Granularity, start: float = 0.5) -> Masked:
    """A mask of one bit whose gains harden."""
    return Masked(granularity, Binary(0.0), Annealed(), start)


def _hardening(name: str, rule: Rule, norms: NormPolicy, lr: float) -> Method:
    """At 3e-2 noise alone moves a logit 3e-2 * sqrt(0.375 * 0.8 * 528) = 0.38: not enough to turn a column off."""
    return Method(name, rule, norms, mask_lr=lr, mask_lr_steps=528, mask_eps=1e-2)


def piggyback(norms: NormPolicy = "full", lr: float = 1e-3) -> Method:
    """Piggyback (Mallya 2018): one bit per weight; cells of a weight whose bit is 0 are rewritten."""
    return masked("piggyback", Weight(), Binary(), Identity(), norms=norms, mask_lr=lr)


def piggyback_ternary(norms: NormPolicy = "full", lr: float = 1e-3) -> Method:
    """Piggyback with three values (Mallya 2018): a weight is kept, dropped or negated; two bits per weight."""
    return masked("piggyback_ternary", Weight(), Ternary(), Identity(), norms=norms, mask_lr=lr)


def ksm_binary(norms: NormPolicy = "full", lr: float = 1e-3) -> Method:
    """KSM (Yang 2021), hard: one bit per kernel, an input and an output channel's taps."""
    return masked("ksm_binary", Kernel(), Binary(), Sigmoid(), norms=norms, mask_lr=lr)


def ksm_soft(norms: NormPolicy = "full", lr: float = 1e-3, bits: int = 8) -> Method:
    """KSM (Yang 2021), soft: kernels that are off keep a grey value of at most a half, in ``bits`` bits, 2 to 24."""
    bits = check_int("ksm_soft.bits", bits, 2, 24)
    return masked("ksm_soft", Kernel(), Soft(width=bits), Sigmoid(), norms=norms, mask_lr=lr)


def xma(norms: NormPolicy = "full", lr: float = 3e-2, bits: int = 3, top: int = 0) -> Method:
    """XMA (DAC 2022): each column counts times 0 or a signed power of two, ``bits`` a column; no cell is written."""
    return masked("xma", Column(), Shift(width=bits, top=top), Identity(), start=1.0, norms=norms, mask_lr=lr)


def xma2(norms: NormPolicy = "full", lr: float = 1e-3, share: float = 0.1, gain_bits: int = 4) -> Method:
    """XMA2 (2022): at most ``share`` of the arrays rewritten, ``gain_bits`` bits of scale on all other columns."""
    return Method("xma2", ArrayChoice(share, gain_bits), norms=norms, mask_lr=lr)


def lora(norms: NormPolicy = "full", lr: float = 1e-3, rank: int = 4) -> Method:
    """LoRA (Hu 2022): a digital product of rank ``rank`` beside every layer; no cell is written."""
    return Method("lora", LowRank(rank, float(rank)), norms=norms, mask_lr=lr)


def finetune(norms: NormPolicy = "full", lr: float = 1e-3) -> Method:
    """Fine-tuning: all weights are trained, through the chip's levels, and their cells rewritten."""
    return Method("finetune", Rewritten(), norms=norms, mask_lr=lr)


METHODS: dict[str, Callable[..., Method]] = {
    "head_only": head_only,
    "norm_only": norm_only,
    "xbm": xbm,
    "xbm_levels": xbm_levels,
    "xbm_lines": xbm_lines,
    "xma": xma,
    "xma2": xma2,
    "piggyback": piggyback,
    "piggyback_ternary": piggyback_ternary,
    "ksm_binary": ksm_binary,
    "ksm_soft": ksm_soft,
    "lora": lora,
    "finetune": finetune,
}


def by_name(name: str, **options: Any) -> Method:
    """The method that a command line names; ``-`` and ``_`` are the same."""
    make = METHODS.get(name.replace("-", "_"))
    if make is None:
        raise MethodError("method", name, "one of " + ", ".join(METHODS))
    return make(**options)
