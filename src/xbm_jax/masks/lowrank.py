"""LoRA: a digital product of low rank beside the frozen crossbar (Hu 2022), today's alternative to masks."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Plan, Tiles
from xbm_jax.crossbar.primitives.products import product
from xbm_jax.crossbar.validate import keep_int, keep_number
from xbm_jax.masks.half import half_codes, half_numbers
from xbm_jax.masks.rules import Codes, Rule, Values

__all__ = ["LowRank"]


@dataclass(frozen=True)
class LowRank(Rule):
    """``y += (alpha / r) up(down(x))``: ``down`` has the layer's geometry and r outputs a group, ``up`` is 1x1.

    Values are ``{"down": [*kernel_shape[:-1], groups * r], "up": [groups, r, N / groups]}``, kept in half precision:
    their codes are the 16 bits of a float16. ``down`` starts as Gaussian of deviation ``1 / sqrt(K)``, ``up`` at zero,
    so that training starts from the backbone. The rank of a layer is at most that of its kernel matrix.

    Args:
        rank: r, 1 to 1024.
        alpha: scale of the addend, in units of the rank.
    """

    rank: int = 4
    alpha: float = 4.0

    def __post_init__(self) -> None:
        keep_int(self, "rank", 1, 1024)
        keep_number(self, "alpha", low=0.0, open_low=True)

    @property
    def computes_beside(self) -> bool:
        return True

    def init(self, tiles: Tiles, key: jax.Array) -> dict[str, jax.Array]:
        shapes, dtype = self.stored(tiles.plan), tiles.weight_scale.dtype
        down = jax.random.normal(key, shapes["down"].shape, dtype) / tiles.plan.rows**0.5
        return {"down": down, "up": jnp.zeros(shapes["up"].shape, dtype)}

    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        del values, progress
        return tiles, None

    def beside(self, tiles: Tiles, values: Values, x: jax.Array) -> jax.Array:
        dtype = tiles.weight_scale.dtype
        down, up = (half_numbers(values[name], dtype) for name in ("down", "up"))
        groups, rank, _ = up.shape
        inner = product(x, down, tiles.plan.conv)
        inner = inner.reshape(*inner.shape[:-1], groups, rank)
        y = jnp.einsum("...gr,grn->...gn", inner, up, precision=jax.lax.Precision.HIGHEST)
        return self.alpha / self.rank * y.reshape(*y.shape[:-2], -1)

    def beside_kernel(self, tiles: Tiles, values: Values) -> jax.Array:
        dtype = tiles.weight_scale.dtype
        down, up = (half_numbers(values[name], dtype) for name in ("down", "up"))
        groups, rank, _ = up.shape
        apart = down.reshape(*down.shape[:-1], groups, rank)
        kernel = jnp.einsum("...gr,grn->...gn", apart, up, precision=jax.lax.Precision.HIGHEST)
        return self.alpha / self.rank * kernel.reshape(tiles.plan.kernel_shape)

    def encode(self, tiles: Tiles, values: Values) -> dict[str, jax.Array]:
        del tiles
        return {name: half_codes(values[name]) for name in ("down", "up")}

    def stored(self, plan: Plan) -> dict[str, Codes]:
        columns = plan.columns // plan.groups
        rank = min(self.rank, plan.rows, columns)
        return {
            "down": Codes((*plan.kernel_shape[:-1], plan.groups * rank), 16, "weights"),
            "up": Codes((plan.groups, rank, columns), 16, "weights"),
        }
