"""Random small Linen modules: layers of every kind, nested, shared, transformed; weights that levels hold exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from models.random_modules import CLASSES, drawn_array

Body = Callable[[np.random.Generator, jax.Array], jax.Array]


class LinenNetwork(nn.Module):
    """Some random parts, the mean over pixels, a head; what the parts are is a function of the seed."""

    seed: int

    def parts(self) -> list[str]:
        """Names of the parts."""
        draw = np.random.default_rng(self.seed)
        return [str(name) for name in draw.choice(list(LINEN_PARTS), int(draw.integers(1, 4)))]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        draw = np.random.default_rng(self.seed + 1000)
        x = nn.relu(nn.Conv(6, (3, 3), strides=int(draw.integers(1, 3)), name="stem")(x))
        for name in self.parts():
            x = LINEN_PARTS[name](draw, x)
        return nn.Dense(CLASSES, name="head")(x.mean((1, 2)))


class Twice(nn.Module):
    """A dense layer that is set up once and called twice."""

    width: int

    def setup(self) -> None:
        self.inner = nn.Dense(self.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.inner(nn.relu(self.inner(x)))


class Rematted(nn.Module):
    """A dense layer in a module that is rematerialised."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dense(x.shape[-1])(x)


def _one(draw: np.random.Generator, choices: list[Any]) -> Any:
    return choices[int(draw.integers(len(choices)))]


def _conv(draw: np.random.Generator, x: jax.Array) -> jax.Array:
    groups = _one(draw, [g for g in (1, 2, 3) if x.shape[-1] % g == 0])
    options = {"padding": _one(draw, ["SAME", "VALID", "CIRCULAR", "REFLECT", 1, ((0, 1), (2, 0))])}
    size = _one(draw, [(2, 2), (1, 2), (2, 1)])
    return nn.Conv(6, size, feature_group_count=groups, kernel_dilation=_one(draw, [1, (1, 1)]), **options)(x)


def _other_conv(draw: np.random.Generator, x: jax.Array) -> jax.Array:
    if draw.random() < 0.5:
        return nn.Conv(6, (2,), padding=_one(draw, ["SAME", "CAUSAL"]))(x)
    return nn.Conv(6, (2, 2, 1), padding="SAME")(jnp.stack([x, -x], 1)).sum(1)


def _transposed(draw: np.random.Generator, x: jax.Array) -> jax.Array:
    options = {"padding": _one(draw, ["SAME", "VALID", "CIRCULAR"]), "transpose_kernel": bool(draw.random() < 0.5)}
    return nn.ConvTranspose(6, (2, 2), strides=_one(draw, [(1, 1), (2, 1)]), **options)(x)


def _general(draw: np.random.Generator, x: jax.Array) -> jax.Array:
    if draw.random() < 0.5:
        return nn.DenseGeneral(6, axis=(-2, -1))(nn.DenseGeneral((2, 3), use_bias=bool(draw.random() < 0.5))(x))
    return nn.Einsum((x.shape[-1], 6), _one(draw, ["bhwc,cd->bhwd", "bhwc,cd->bwhd", "...c,cd->...d"]))(x)


def _norm(draw: np.random.Generator, x: jax.Array) -> jax.Array:
    kinds = [
        nn.BatchNorm(use_running_average=_one(draw, [True, True, True, False]), momentum=0.9),
        nn.LayerNorm(epsilon=1e-3, use_bias=bool(draw.random() < 0.8)),
        nn.GroupNorm(2),
        nn.RMSNorm(),
    ]
    return _one(draw, kinds)(x)


LINEN_PARTS: dict[str, Body] = {
    "Conv": _conv,
    "Conv of other dimensions": _other_conv,
    "ConvTranspose": _transposed,
    "Dense": lambda draw, x: nn.relu(nn.Dense(6, use_bias=bool(draw.random() < 0.5))(x)),
    "DenseGeneral": _general,
    "norm": _norm,
    "attention": lambda draw, x: nn.MultiHeadDotProductAttention(2, qkv_features=6)(x, x, deterministic=True),
    "twice": lambda draw, x: Twice(x.shape[-1])(x),
    "Sequential": lambda draw, x: nn.Sequential([nn.Dense(6), nn.gelu, nn.Dense(6)])(x),
    "dropout": lambda draw, x: nn.Dropout(0.5, deterministic=bool(draw.random() < 0.75))(x),
    "remat": lambda draw, x: (nn.remat(Rematted) if draw.random() < 0.5 else Rematted)()(x),
    "Embed": lambda draw, x: x + nn.Embed(3, x.shape[-1])(jnp.arange(x.shape[2]) % 3),
}
"""What a part may be."""


def linen_weights(shapes: Any, seed: int) -> Any:
    """Variables of a module with weights that 8-bit levels hold exactly."""
    draw = np.random.default_rng(seed)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(drawn_array(draw, path[-1].key, leaf.shape, len(leaf.shape) > 3), leaf.dtype),
        shapes,
    )
