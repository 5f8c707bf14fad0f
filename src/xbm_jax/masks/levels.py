"""Binary masks whose off columns count a little: two levels of a layer, one of them learned."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Plan, Tiles
from xbm_jax.crossbar.validate import keep_number
from xbm_jax.errors import MethodError
from xbm_jax.masks.half import half_codes, half_numbers
from xbm_jax.masks.rules import Codes, Masked, Rule, Values

__all__ = ["Levels"]


@dataclass(frozen=True)
class Levels(Rule):
    """``a = low + (1 - low) b``: a mask b of columns or lines, and one learned level a layer for what is off.

    Values are ``{"mask": m, "low": [1]}``; the level is stored in half precision. A column that is off still counts,
    so it is converted: this costs the energy of all columns.

    Args:
        mask: of columns or lines.
        low: the level that training starts from.

    Raises:
        MethodError: a mask of weights.
    """

    mask: Masked
    low: float = 0.2

    def __post_init__(self) -> None:
        if not self.mask.granularity.on_columns:
            raise MethodError("Levels.mask", type(self.mask.granularity).__name__, "a mask of columns or lines")
        keep_number(self, "low")

    @property
    def until(self) -> float:
        return self.mask.until

    def init(self, tiles: Tiles, key: jax.Array) -> dict[str, jax.Array]:
        return {"mask": self.mask.init(tiles, key), "low": jnp.full((1,), self.low, tiles.weight_scale.dtype)}

    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        tiles, mask = self.mask.apply(tiles, values["mask"], progress)
        assert mask is not None  # of columns or lines
        low = half_numbers(values["low"], tiles.weight_scale.dtype)
        return tiles, low + (1 - low) * mask

    def encode(self, tiles: Tiles, values: Values) -> dict[str, jax.Array]:
        return {"mask": self.mask.encode(tiles, values["mask"]), "low": half_codes(values["low"])}

    def stored(self, plan: Plan) -> dict[str, Codes]:
        return {"mask": self.mask.stored(plan), "low": Codes((1,), 16)}
