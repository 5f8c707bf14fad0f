"""A price on columns that count: masks learn to do with fewer of those that cost most."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Tiles
from xbm_jax.crossbar.validate import check_number, keep_number
from xbm_jax.errors import MethodError
from xbm_jax.masks.rules import Rule

__all__ = ["Budget", "check_budget", "priced"]


@dataclass(frozen=True)
class Budget:
    """What the columns of each layer cost, and how much that weighs beside the loss.

        loss + weight * max(0, share - bound),    share = sum_l p_l sum_tn r[l, t, n] / sum_l p_l T_l N_l
        r[t, n] = |a[t, n]| / max_t |a[t, n]|

    ``a``: gains as they are in training, in place of the decisions. ``share`` is the part of the priced energy that is
    left: 1 of the backbone, as training starts. Gains count relative to the largest of their output channel, since a
    norm undoes what scales all of a channel: an absolute price would shrink every gain of it, at no loss, until the
    decisions switch the whole channel off. So no channel is ever asked to go, and none of a single tile has a price.

    Args:
        prices: p_l, of one column of layer l, by path, in any unit: ``xbm.hardware.column_prices(...)`` gives them.
        weight: of the penalty, in units of the loss.
        bound: the share below which nothing more is asked, in [0, 1].
    """

    prices: tuple[tuple[str, float], ...]
    weight: float = 1.0
    bound: float = 0.0

    def __post_init__(self) -> None:
        given = dict(self.prices)
        for path, price in given.items():
            check_number(f"Budget.prices[{path!r}]", price, 0.0, 3e38)
        if not any(given.values()):
            raise MethodError("Budget.prices", given, "a price above zero for some layer")
        object.__setattr__(self, "prices", tuple((path, float(price)) for path, price in given.items()))
        keep_number(self, "weight", low=0.0, high=3e38)
        keep_number(self, "bound", low=0.0, high=1.0)


def check_budget(budget: Budget, rule: Rule | None, layers: Collection[str]) -> None:
    """Raise MethodError for a rule without column gains, or prices of other layers."""
    if rule is None or rule.rewrites_cells or rule.computes_beside:
        allowed = "None, or a method whose masks are gains of columns or lines: no other can switch a column off"
        raise MethodError("Recipe.budget", "a price on columns", allowed)
    given = [path for path, _ in budget.prices]
    if sorted(given) != sorted(layers):
        raise MethodError("Budget.prices", sorted(given), f"a price for each of the chip's layers {sorted(layers)}")


def priced(
    budget: Budget, rule: Rule, tiles: Mapping[str, Tiles], values: Mapping[str, Any], progress: jax.Array | None
) -> jax.Array:
    """The penalty of a budget on a rule's values, a scalar; traceable."""
    paid, whole = jnp.zeros(()), 0.0
    for path, price in budget.prices:
        gain = rule.apply(tiles[path], values[path], progress)[1]
        assert gain is not None  # the budget was checked
        lines = gain.shape[1] if gain.ndim == 3 else 1
        size = jnp.abs(gain)
        most = jnp.max(size, tuple(range(size.ndim - 1)))
        paid = paid + price * jnp.sum(size / jnp.where(most > 0, most, 1)) / lines
        whole += price * gain.size / lines
    return budget.weight * jnp.maximum(paid / whole - budget.bound, 0.0)
