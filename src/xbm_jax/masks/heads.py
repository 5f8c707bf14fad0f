"""A task's digital head: from the backbone's features to the task's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

__all__ = ["Head", "Linear", "Params"]

Params = dict[str, jax.Array]
"""A head's arrays by name."""


@dataclass(frozen=True)
class Head:
    """The base of all heads; a user's own is a frozen dataclass with these methods."""

    def init(self, features: int, outputs: int, key: jax.Array) -> Params:
        """What training starts from."""
        raise TypeError(f"{type(self).__name__} draws nothing for {features} features and {outputs} outputs")

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        """Outputs [batch, outputs] of the features that the backbone's classifier would get, or of each token's."""
        raise TypeError(f"{type(self).__name__} answers nothing to {x.shape}")

    def features(self, params: Params) -> int:
        """How many features it takes."""
        raise TypeError(f"{type(self).__name__} does not say what {sorted(params)} take")

    def outputs(self, params: Params) -> int:
        """How many outputs it gives."""
        raise TypeError(f"{type(self).__name__} does not say what {sorted(params)} give")

    def padded(self, params: Params, outputs: int) -> Params:
        """The head with outputs appended that mean nothing, so that heads of several tasks have one shape."""
        raise TypeError(f"{type(self).__name__} does not pad {sorted(params)} to {outputs}")

    def cut(self, params: Params, outputs: int) -> Params:
        """Undo :meth:`padded`."""
        raise TypeError(f"{type(self).__name__} does not cut {sorted(params)} to {outputs}")

    def compact(self, params: Params) -> Params:
        """The head as a bank keeps it, in fewer bits where it has a form for that; :meth:`apply` takes either."""
        return params

    def full(self, params: Params) -> Params:
        """The head in real numbers, whatever its form."""
        return params


@dataclass(frozen=True)
class Linear(Head):
    """``y = x @ kernel + bias`` in full precision on every device.

    Arrays are ``{"kernel": [features, outputs], "bias": [outputs]}``. The kernel starts from U(-1, 1) / sqrt(features),
    as usual for a dense layer, the bias at zero. A compact one is ``{"kernel": int8, "scale": float16 [outputs],
    "bias": float16}``: ``kernel * scale`` stands for the weights, ``scale`` is an output's largest over 127.
    """

    def init(self, features: int, outputs: int, key: jax.Array) -> Params:
        limit = features**-0.5
        kernel = jax.random.uniform(key, (features, outputs), jnp.float32, -limit, limit)
        return {"kernel": kernel, "bias": jnp.zeros((outputs,), jnp.float32)}

    def apply(self, params: Params, x: jax.Array) -> jax.Array:
        y = jnp.matmul(x, params["kernel"].astype(x.dtype), precision=jax.lax.Precision.HIGHEST)
        if "scale" in params:
            y = y * params["scale"].astype(x.dtype)
        return y + params["bias"].astype(x.dtype)

    def features(self, params: Params) -> int:
        return params["kernel"].shape[-2]

    def outputs(self, params: Params) -> int:
        return params["bias"].shape[-1]

    def padded(self, params: Params, outputs: int) -> Params:
        return {name: _last_axis(array, outputs) for name, array in params.items()}

    def cut(self, params: Params, outputs: int) -> Params:
        return {name: array[..., :outputs] for name, array in params.items()}

    def compact(self, params: Params) -> Params:
        if "scale" in params:
            return params
        kernel, bias = params["kernel"], params["bias"].astype(jnp.float16)
        scale = (jnp.max(jnp.abs(kernel), axis=-2) / 127).astype(jnp.float16)
        wide = scale.astype(kernel.dtype)[..., None, :]
        codes = jnp.clip(jnp.round(kernel / jnp.where(wide > 0, wide, 1)), -127, 127)
        exact = jnp.all(jnp.isfinite(scale)) & jnp.all(jnp.isfinite(bias))
        return {"kernel": codes.astype(jnp.int8), "scale": scale, "bias": bias} if exact else params

    def full(self, params: Params) -> Params:
        if "scale" not in params:
            return params
        scale, bias = (params[name].astype(jnp.float32) for name in ("scale", "bias"))
        return {"kernel": params["kernel"] * scale[..., None, :], "bias": bias}


def _last_axis(array: jax.Array, size: int) -> jax.Array:
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])])
