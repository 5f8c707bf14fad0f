"""What stands in for the gradient of a hard decision, and for the decision itself while a task is young."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.validate import keep_number

__all__ = ["Annealed", "Estimator", "Identity", "Sigmoid"]


@dataclass(frozen=True)
class Estimator:
    """Supplies a smooth ``carrier(m)``; the mask's value is the decision's, its gradient is the carrier's.

    ``soft_until``: share of the training during which the carrier's value counts too, and not the decision's. A task is
    always validated, tested and stored with its decisions.
    """

    soft_until: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        keep_number(self, "soft_until", low=0.0, high=1.0)

    @property
    def until(self) -> float:
        """Share of the training during which logits are learned; then they stand."""
        return 1.0

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        """A real array of the logits' shape, differentiable in them; ``progress`` is the share of training done."""
        raise TypeError(f"{type(self).__name__} has no carrier for {logits.shape} at {threshold} and {progress}")


@dataclass(frozen=True)
class Identity(Estimator):
    """``db/dm = 1``: Piggyback's straight-through estimator (Mallya 2018).

    With ``soft_until`` training starts with real gains, which are then snapped.
    """

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        del threshold, progress
        return logits


@dataclass(frozen=True)
class Sigmoid(Estimator):
    """``db/dm = dp/dm`` with ``p = sigmoid(beta * (m - threshold) / temperature)`` (KSM, Yang 2021)."""

    beta: float = 1200.0
    temperature: float = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_number(self, "beta", low=0.0, open_low=True)
        keep_number(self, "temperature", low=0.0, open_low=True)

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        del progress
        return jax.nn.sigmoid(self.beta * (logits - threshold) / self.temperature)


@dataclass(frozen=True)
class Annealed(Estimator):
    """``p = sigmoid(beta (m - threshold))`` counts in place of the decision, with a beta that grows until it is one.

        beta = beta_start ** (1 - r) * beta_end ** r,   r = max(0, (q - hold) / (1 - hold)),   q = progress / soft_until

    (continuous sparsification, Savarese 2020). With a ``floor`` an off column first counts a little, and no more at the
    end: ``floor (1 - r) + (1 - floor (1 - r)) p``. From ``soft_until`` on the decision counts, and stands.

    Args:
        soft_until: share of the training after which masks are decided and learn no more; norms and head go on.
        beta_start: slope at the start.
        beta_end: slope when the decision takes over.
        hold: share of the soft phase before the slope grows.
        floor: what an off column counts at the start, in [0, 0.99].
    """

    soft_until: float = field(default=0.8, kw_only=True)
    beta_start: float = 4.0
    beta_end: float = 120.0
    hold: float = 0.3
    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_number(self, "soft_until", low=0.0, high=1.0, open_low=True)
        keep_number(self, "beta_start", low=0.0, open_low=True)
        keep_number(self, "beta_end", low=self.beta_start)
        keep_number(self, "hold", low=0.0, high=0.99)
        keep_number(self, "floor", low=0.0, high=0.99)

    @property
    def until(self) -> float:
        return self.soft_until

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        q = jnp.minimum(progress / self.soft_until, 1.0)
        r = jnp.maximum(0.0, (q - self.hold) / (1 - self.hold))
        beta, floor = self.beta_start ** (1 - r) * self.beta_end**r, self.floor * (1 - r)
        return floor + (1 - floor) * jax.nn.sigmoid(beta * (logits - threshold))
