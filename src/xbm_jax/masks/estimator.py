"""What stands in for the gradient of a hard decision."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from xbm_jax.crossbar.validate import check_number

__all__ = ["Estimator", "Identity", "Sigmoid"]


@dataclass(frozen=True)
class Estimator:
    """Supplies a smooth ``carrier(m)``; the mask's value is the decision's, its gradient is the carrier's."""

    def carrier(self, logits: jax.Array, threshold: float) -> jax.Array:
        """A real array of the logits' shape, differentiable in them."""
        raise TypeError(f"{type(self).__name__} has no carrier for {logits.shape} at {threshold}")


@dataclass(frozen=True)
class Identity(Estimator):
    """``db/dm = 1``: Piggyback's straight-through estimator (Mallya 2018)."""

    def carrier(self, logits: jax.Array, threshold: float) -> jax.Array:
        del threshold
        return logits


@dataclass(frozen=True)
class Sigmoid(Estimator):
    """``db/dm = dp/dm`` with ``p = sigmoid(beta * (m - threshold) / temperature)`` (KSM, Yang 2021)."""

    beta: float = 1200.0
    temperature: float = 100.0

    def __post_init__(self) -> None:
        check_number("Sigmoid.beta", self.beta, low=0.0, open_low=True)
        check_number("Sigmoid.temperature", self.temperature, low=0.0, open_low=True)

    def carrier(self, logits: jax.Array, threshold: float) -> jax.Array:
        return jax.nn.sigmoid(self.beta * (logits - threshold) / self.temperature)
