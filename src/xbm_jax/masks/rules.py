"""How a task changes one programmed layer: a rule turns the layer and the task's values into what is read.

Values are real numbers while a task is learned (mask logits, weights) and integer codes once it is stored; a rule takes
either, so that one forward pass serves training and stored tasks and both give the same bits. A layer's values are an
array, or a dictionary of arrays where a rule learns several things.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Plan, Tiles, nominal_weights, reprogram
from xbm_jax.crossbar.primitives.quantise import quantise, straight_through
from xbm_jax.crossbar.validate import keep_number
from xbm_jax.masks.alphabet import Alphabet
from xbm_jax.masks.estimator import Estimator
from xbm_jax.masks.granularity import Granularity

__all__ = ["Codes", "Gains", "Gradients", "Masked", "Rewritten", "Rule", "Values"]

Values = Any
"""One layer's values: an array, or a dictionary of arrays."""

Gradients = Callable[["Rule"], Mapping[str, Values]]
"""What a phase of a rule may ask for: see :meth:`Rule.turned`."""


@dataclass(frozen=True)
class Codes:
    """How one array of codes is stored.

    Attributes:
        shape: its shape.
        bits: width of one code, 1 to 32.
        kind: whether it counts as ``"mask"`` or as ``"weights"`` (whole weights, or what stands in for them).
    """

    shape: tuple[int, ...]
    bits: int
    kind: Literal["mask", "weights"] = "mask"


@dataclass(frozen=True)
class Rule:
    """The base of all rules: a task that changes nothing in the layer."""

    @property
    def rewrites_cells(self) -> bool:
        """Whether using the task means writing cells."""
        return False

    @property
    def computes_beside(self) -> bool:
        """Whether digital logic adds to what the arrays answer, see :meth:`beside`."""
        return False

    def init(self, tiles: Tiles, key: jax.Array) -> Values:
        """The values that training starts from; ``key`` draws those that are random."""
        raise TypeError(f"{type(self).__name__} trains nothing on kernel {tiles.plan.kernel_shape}")

    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        """The layer as the task has it, and its gains: of columns [T, N], of lines [T, 2, N], or ``None``.

        ``progress``: share of the training done; ``None`` outside of training.
        """
        raise TypeError(f"{type(self).__name__} applies nothing to {tiles.plan.kernel_shape}")

    def check(self, recipe: Mapping[str, int]) -> str | None:
        """What speaks against learning by a recipe of so many ``epochs``, if anything."""
        del recipe
        return None

    @property
    def until(self) -> float:
        """Share of the training during which the rule's values are learned, and their rate's schedule runs."""
        return 1.0

    def turns(self, step: int, steps: int, epochs: int) -> bool:
        """Whether :meth:`turned` changes the values before a step of the whole run, ``epochs`` of ``steps`` each."""
        del step, steps, epochs
        return False

    def turned(
        self, plans: Mapping[str, Plan], values: Mapping[str, Values], gradients: Gradients
    ) -> dict[str, Values]:
        """All layers' values as a phase of the rule leaves them: arrays chosen, masks hardened.

        ``gradients(rule)``: the loss's gradients of the values, as ``rule`` applies them, added up over images.
        """
        del plans, gradients
        return dict(values)

    def beside(self, tiles: Tiles, values: Values, x: jax.Array) -> jax.Array | None:
        """What digital logic adds to the layer's answer to ``x``; ``None``: nothing."""
        del tiles, values, x
        return None

    def beside_kernel(self, tiles: Tiles, values: Values) -> jax.Array | None:
        """The kernel [*kernel_shape], in weights, that :meth:`beside` is the product with; ``None``: it is none."""
        del tiles, values
        return None

    def encode(self, tiles: Tiles, values: Values) -> Values:
        """Real values to the integer codes that are stored; codes pass unchanged."""
        raise TypeError(f"{type(self).__name__} stores nothing of {tiles.plan.kernel_shape}")

    def stored(self, plan: Plan) -> Codes | dict[str, Codes]:
        """How one layer's codes are stored, in the values' structure."""
        raise TypeError(f"{type(self).__name__} stores nothing of {plan.kernel_shape}")

    def needed(self, plan: Plan, values: Values) -> Any:
        """How many codes of each array one layer needs, in the values' structure: all, unless a rule says less."""
        del values
        return jax.tree.map(lambda kept: math.prod(kept.shape), self.stored(plan))


@dataclass(frozen=True)
class Gains(Rule):
    """A task whose values are the gains themselves, of columns or of lines; ``None`` counts a layer's columns fully."""

    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        del progress
        return tiles, values


def is_real(values: jax.Array) -> bool:
    """Whether values are real numbers that are learned, and not stored codes."""
    return jnp.issubdtype(values.dtype, jnp.floating)


@dataclass(frozen=True)
class Masked(Rule):
    """A mask: granularity x alphabet x estimator.

    ``values = straight_through(decode(encode(m)), carrier(m))``; as column gain, or times the nominal weights. Early in
    training, while ``progress < estimator.soft_until``, they are ``carrier(m) / carrier(start)``: whatever the
    estimator, training starts from the backbone itself, and a logit that never moves counts fully throughout.
    """

    granularity: Granularity
    alphabet: Alphabet
    estimator: Estimator
    start: float = 1e-2

    def __post_init__(self) -> None:
        keep_number(self, "start")

    @property
    def rewrites_cells(self) -> bool:
        return not self.granularity.on_columns

    @property
    def until(self) -> float:
        return self.estimator.until

    def init(self, tiles: Tiles, key: jax.Array) -> jax.Array:
        del key
        return jnp.full(self.granularity.shape(tiles.plan), self.start, tiles.weight_scale.dtype)

    def values(self, tiles: Tiles, values: jax.Array, progress: jax.Array | None = None) -> jax.Array:
        """Mask values of logits (with the estimator's gradient) or of codes."""
        hard = self.alphabet.decode(self.encode(tiles, values), tiles.weight_scale.dtype)
        if not is_real(values):
            return hard
        soft_until, at = self.estimator.soft_until, 1.0 if progress is None else progress
        carrier = self.estimator.carrier(values, self.alphabet.threshold, at)
        if soft_until > 0:
            carrier = carrier / self.estimator.carrier(jnp.asarray(self.start), self.alphabet.threshold, at)
        decided = straight_through(hard, carrier)
        return decided if progress is None or soft_until == 0 else jnp.where(progress < soft_until, carrier, decided)

    def apply(
        self, tiles: Tiles, values: jax.Array, progress: jax.Array | None = None
    ) -> tuple[Tiles, jax.Array | None]:
        spread = self.granularity.spread(self.values(tiles, values, progress), tiles.plan)
        if self.granularity.on_columns:
            return tiles, spread
        return reprogram(tiles, nominal_weights(tiles) * spread), None

    def encode(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        return self.alphabet.encode(values) if is_real(values) else values

    def stored(self, plan: Plan) -> Codes:
        return Codes(self.granularity.shape(plan), self.alphabet.bits)


@dataclass(frozen=True)
class Rewritten(Rule):
    """Fine-tuning: every weight is trained and its cells rewritten; codes are ``w_int + 2**(weight_bits - 1)``."""

    @property
    def rewrites_cells(self) -> bool:
        return True

    def init(self, tiles: Tiles, key: jax.Array) -> jax.Array:
        del key
        return nominal_weights(tiles)

    def apply(
        self, tiles: Tiles, values: jax.Array, progress: jax.Array | None = None
    ) -> tuple[Tiles, jax.Array | None]:
        del progress
        return reprogram(tiles, weights_of(tiles, values)), None

    def encode(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        return weight_codes(tiles, values)

    def stored(self, plan: Plan) -> Codes:
        return Codes(plan.kernel_shape, plan.spec.weight_bits, "weights")


def weight_codes(tiles: Tiles, weights: jax.Array) -> jax.Array:
    """Real weights to unsigned codes ``w_int + 2**(weight_bits - 1)``; codes pass unchanged."""
    if not is_real(weights):
        return weights
    spec = tiles.plan.spec
    w_int = quantise(weights, tiles.weight_scale, -spec.max_weight, spec.max_weight)
    return (w_int + 2 ** (spec.weight_bits - 1)).astype(jnp.uint8)


def weights_of(tiles: Tiles, values: jax.Array) -> jax.Array:
    """Undo :func:`weight_codes`; real weights pass unchanged."""
    if is_real(values):
        return values
    offset = 2 ** (tiles.plan.spec.weight_bits - 1)
    return (values.astype(jnp.int32) - offset).astype(tiles.weight_scale.dtype) * tiles.weight_scale
