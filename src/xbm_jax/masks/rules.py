"""How a task changes one programmed layer: a rule turns the layer and the task's values into what is read.

Values are real mask logits while a task is learned (floating dtype) and integer codes once it is stored; a rule takes
either, so that one forward pass serves training and stored tasks and both give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Plan, Tiles, nominal_weights, reprogram
from xbm_jax.crossbar.quantise import quantise, straight_through
from xbm_jax.masks.alphabet import Alphabet
from xbm_jax.masks.estimator import Estimator
from xbm_jax.masks.granularity import Granularity

__all__ = ["Masked", "Rewritten", "Rule"]


@dataclass(frozen=True)
class Rule:
    """The base of all rules: a task that changes nothing in the layer."""

    @property
    def rewrites_cells(self) -> bool:
        """Whether using the task means writing cells."""
        return False

    @property
    def keeps_weights(self) -> bool:
        """Whether what is stored are weights rather than masks."""
        return False

    def init(self, tiles: Tiles) -> jax.Array:
        """The values that training starts from."""
        raise TypeError(f"{type(self).__name__} trains nothing on kernel {tiles.plan.kernel_shape}")

    def apply(self, tiles: Tiles, values: jax.Array) -> tuple[Tiles, jax.Array | None]:
        """The layer as the task has it, and its column gains [T, N]."""
        raise TypeError(f"{type(self).__name__} applies nothing to {tiles.plan.kernel_shape} from {values.shape}")

    def encode(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        """Real values to the integer codes that are stored; codes pass unchanged."""
        raise TypeError(f"{type(self).__name__} stores nothing of {tiles.plan.kernel_shape} from {values.shape}")

    def code_shape(self, plan: Plan) -> tuple[int, ...]:
        """Shape of one layer's stored codes."""
        raise TypeError(f"{type(self).__name__} stores nothing of {plan.kernel_shape}")

    def code_bits(self, plan: Plan) -> int:
        """Bits of one stored code."""
        raise TypeError(f"{type(self).__name__} stores nothing of {plan.kernel_shape}")


@dataclass(frozen=True)
class Masked(Rule):
    """A mask: granularity x alphabet x estimator.

    ``values = straight_through(decode(encode(m)), carrier(m))``; as column gain, or times the nominal weights.
    """

    granularity: Granularity
    alphabet: Alphabet
    estimator: Estimator
    start: float = 1e-2

    @property
    def rewrites_cells(self) -> bool:
        return not self.granularity.on_columns

    def init(self, tiles: Tiles) -> jax.Array:
        return jnp.full(self.granularity.shape(tiles.plan), self.start, tiles.weight_scale.dtype)

    def values(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        """Mask values of logits (with the estimator's gradient) or of codes."""
        hard = self.alphabet.decode(self.encode(tiles, values), tiles.weight_scale.dtype)
        if not jnp.issubdtype(values.dtype, jnp.floating):
            return hard
        return straight_through(hard, self.estimator.carrier(values, self.alphabet.threshold))

    def apply(self, tiles: Tiles, values: jax.Array) -> tuple[Tiles, jax.Array | None]:
        spread = self.granularity.spread(self.values(tiles, values), tiles.plan)
        if self.granularity.on_columns:
            return tiles, spread
        return reprogram(tiles, nominal_weights(tiles) * spread), None

    def encode(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        return self.alphabet.encode(values) if jnp.issubdtype(values.dtype, jnp.floating) else values

    def code_shape(self, plan: Plan) -> tuple[int, ...]:
        return self.granularity.shape(plan)

    def code_bits(self, plan: Plan) -> int:
        del plan
        return self.alphabet.bits


@dataclass(frozen=True)
class Rewritten(Rule):
    """Fine-tuning: every weight is trained and its cells rewritten; codes are ``w_int + 2**(weight_bits - 1)``."""

    @property
    def rewrites_cells(self) -> bool:
        return True

    @property
    def keeps_weights(self) -> bool:
        return True

    def init(self, tiles: Tiles) -> jax.Array:
        return nominal_weights(tiles)

    def apply(self, tiles: Tiles, values: jax.Array) -> tuple[Tiles, jax.Array | None]:
        if not jnp.issubdtype(values.dtype, jnp.floating):
            offset = 2 ** (tiles.plan.spec.weight_bits - 1)
            values = (values.astype(jnp.int32) - offset).astype(tiles.weight_scale.dtype) * tiles.weight_scale
        return reprogram(tiles, values), None

    def encode(self, tiles: Tiles, values: jax.Array) -> jax.Array:
        if not jnp.issubdtype(values.dtype, jnp.floating):
            return values
        spec = tiles.plan.spec
        w_int = quantise(values, tiles.weight_scale, -spec.max_weight, spec.max_weight)
        return (w_int + 2 ** (spec.weight_bits - 1)).astype(jnp.uint8)

    def code_shape(self, plan: Plan) -> tuple[int, ...]:
        return plan.kernel_shape

    def code_bits(self, plan: Plan) -> int:
        return plan.spec.weight_bits
