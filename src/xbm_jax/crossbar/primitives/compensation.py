"""Global drift compensation: one digital factor that undoes the mean of a layer's drift."""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["drift_compensation"]


def drift_compensation(outputs_programmed: jax.Array, outputs_now: jax.Array) -> jax.Array:
    """The factor that a layer's outputs are multiplied by after drift, a scalar.

        alpha = sum_n |y_n(right after programming)| / sum_n |y_n(t)|

    Args:
        outputs_programmed: column outputs for one fixed input, any shape; all axes are summed.
        outputs_now: the same columns for the same input at time t, same shape.

    Magnitudes are summed, because the outputs of differential pairs may cancel; single columns under a positive input
    are positive anyway. A layer that gives no output at t keeps the factor 1.
    Source: Joshi et al., Nature Communications 11, 2473 (2020); magnitudes as in aihwkit's ``GlobalDriftCompensation``.
    """
    before, now = jnp.sum(jnp.abs(outputs_programmed)), jnp.sum(jnp.abs(outputs_now))
    return jnp.where(now > 0.0, before / jnp.where(now > 0.0, now, 1.0), 1.0)
