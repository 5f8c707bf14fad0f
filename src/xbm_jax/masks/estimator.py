"""What stands in for the gradient of a hard decision, and for the decision itself while a task is young."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax

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

    beta = beta_start ** (1 - q) * beta_end ** q,   q = progress / soft_until

    (continuous sparsification, Savarese 2020). From ``soft_until`` on the decision counts, with p's gradient at
    ``beta_end``.
    """

    soft_until: float = field(default=0.8, kw_only=True)
    beta_start: float = 200.0
    beta_end: float = 2e4

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_number(self, "soft_until", low=0.0, high=1.0, open_low=True)
        keep_number(self, "beta_start", low=0.0, open_low=True)
        keep_number(self, "beta_end", low=self.beta_start)

    def carrier(self, logits: jax.Array, threshold: float, progress: jax.Array | float) -> jax.Array:
        q = jax.numpy.minimum(progress / self.soft_until, 1.0)
        beta = self.beta_start ** (1 - q) * self.beta_end**q
        return jax.nn.sigmoid(beta * (logits - threshold))
