"""XMA2: rewrite the few arrays that are worth it, and scale the columns of all others (Front. Electron. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from xbm_jax.crossbar import Plan, Tiles, nominal_weights, reprogram
from xbm_jax.crossbar.primitives.quantise import straight_through
from xbm_jax.crossbar.reading.reads import gain_on_kernel
from xbm_jax.crossbar.validate import keep_int, keep_number
from xbm_jax.masks.rules import Codes, Gradients, Rule, Values, is_real, weight_codes, weights_of

__all__ = ["ArrayChoice", "most_wanted"]


@dataclass(frozen=True)
class ArrayChoice(Rule):
    """Chosen arrays are rewritten with weights of the task's own; columns of all others are scaled.

    ``W' = W_task`` and ``a = 1`` on chosen arrays, ``W' = W`` and ``a = q / 2**(gain_bits - 1)`` elsewhere, with
    integer codes ``q = clip(round((1 + gain_rate v) 2**(gain_bits - 1)), 0, 2**gain_bits - 1)``. Values are
    ``{"arrays": [ceil(K / rows), A], "weights": kernel, "gains": v [T, N]}``; an array, with all row tiles that it
    holds, is chosen where its entry is positive. No gradient reaches that choice: training starts with no array chosen,
    and a phase of the rule makes it once, for the whole network (:func:`most_wanted`).

    Args:
        share: at most this share of the network's arrays is rewritten, in [0, 1].
        gain_bits: width of a column's scale, 2 to 8.
        after_epochs: epochs of columns, norms and head alone that stand before the choice.
        gain_rate: how much faster gains move than weights under one learning rate of Adam's.
    """

    share: float = 0.1
    gain_bits: int = 4
    after_epochs: int = 1
    gain_rate: float = 30.0

    def __post_init__(self) -> None:
        keep_number(self, "share", low=0.0, high=1.0)
        keep_int(self, "gain_bits", 2, 8)
        keep_int(self, "after_epochs", 0, 100_000)
        keep_number(self, "gain_rate", low=0.0)

    @property
    def rewrites_cells(self) -> bool:
        return True

    def check(self, recipe: Mapping[str, int]) -> str | None:
        if self.after_epochs >= recipe["epochs"]:
            return f"more than the {self.after_epochs} epochs after which arrays are chosen"
        return None

    def turns(self, step: int, steps: int, epochs: int) -> bool:
        del epochs
        return step == self.after_epochs * steps

    def turned(
        self, plans: Mapping[str, Plan], values: Mapping[str, Values], gradients: Gradients
    ) -> dict[str, Values]:
        """Those arrays chosen whose rewriting promises most: with the largest ``sum |dL/dw|``."""
        found = {path: own["weights"] for path, own in gradients(self.undecided).items()}
        chosen = most_wanted(plans, found, self.share)
        return {path: {**own, "arrays": jnp.asarray(chosen[path])} for path, own in values.items()}

    @property
    def undecided(self) -> Rule:
        """The same rule with every array open to both: the gradient of its weights says what an array is worth."""
        return _Undecided(self.share, self.gain_bits, self.after_epochs, self.gain_rate)

    def init(self, tiles: Tiles, key: jax.Array) -> dict[str, jax.Array]:
        del key
        plan, weights = tiles.plan, nominal_weights(tiles)
        return {
            "arrays": jnp.full(plan.array_grid, -1, weights.dtype),
            "weights": weights,
            "gains": jnp.zeros((plan.row_tiles, plan.columns), weights.dtype),
        }

    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        del progress
        rewritten = self.rewritten(tiles.plan, values)
        on_kernel = gain_on_kernel(tiles.plan, rewritten)
        weights = jnp.where(on_kernel, weights_of(tiles, values["weights"]), nominal_weights(tiles))
        return reprogram(tiles, weights), jnp.where(rewritten, 1, self.gains(tiles, values["gains"]))

    def rewritten(self, plan: Plan, values: Values) -> jax.Array:
        """Columns of chosen arrays, bool [T, N]."""
        return plan.spread_arrays(values["arrays"] > 0)

    def gains(self, tiles: Tiles, gains: jax.Array) -> jax.Array:
        """Real values or codes to gains, with straight-through gradients."""
        hard = self._gain_codes(gains).astype(tiles.weight_scale.dtype) / 2 ** (self.gain_bits - 1)
        return straight_through(hard, 1 + self.gain_rate * gains) if is_real(gains) else hard

    def _gain_codes(self, gains: jax.Array) -> jax.Array:
        if not is_real(gains):
            return gains
        codes = jnp.round((1 + self.gain_rate * jax.lax.stop_gradient(gains)) * 2 ** (self.gain_bits - 1))
        return jnp.clip(codes, 0, 2**self.gain_bits - 1).astype(jnp.uint8)

    def encode(self, tiles: Tiles, values: Values) -> dict[str, jax.Array]:
        """As stored; a weight on an array that was not chosen has the code 0."""
        on_kernel = gain_on_kernel(tiles.plan, self.rewritten(tiles.plan, values))
        return {
            "arrays": (values["arrays"] > 0).astype(jnp.uint8),
            "weights": jnp.where(on_kernel, weight_codes(tiles, values["weights"]), 0).astype(jnp.uint8),
            "gains": self._gain_codes(values["gains"]),
        }

    def stored(self, plan: Plan) -> dict[str, Codes]:
        return {
            "arrays": Codes(plan.array_grid, 1),
            "weights": Codes(plan.kernel_shape, plan.spec.weight_bits, "weights"),
            "gains": Codes((plan.row_tiles, plan.columns), self.gain_bits),
        }

    def needed(self, plan: Plan, values: Values) -> dict[str, Any]:
        """Codes that matter: weights of chosen arrays, and gains of the others."""
        rewritten = self.rewritten(plan, values)
        return {
            "arrays": int(np.size(values["arrays"])),
            "weights": jnp.sum(rewritten[plan.tile_index]),
            "gains": jnp.sum(~rewritten),
        }


@dataclass(frozen=True)
class _Undecided(ArrayChoice):
    def apply(self, tiles: Tiles, values: Values, progress: jax.Array | None = None) -> tuple[Tiles, jax.Array | None]:
        del progress
        return reprogram(tiles, weights_of(tiles, values["weights"])), self.gains(tiles, values["gains"])


def most_wanted(plans: Mapping[str, Plan], gradients: Mapping[str, ArrayLike], share: float) -> dict[str, np.ndarray]:
    """The arrays whose rewriting promises most: ``floor(share * arrays)`` of the network, as +1, all others -1.

    An array promises ``sum |dL/dw|`` over its weights, what one step of equal size for every weight gains.

    Args:
        plans: by layer path.
        gradients: dL/dw in each kernel's shape, averaged over training images.

    Returns:
        ``{path: float32, shaped as plan.array_grid}``.
    """
    worth = {path: _worth(plan, np.asarray(gradients[path], np.float64)) for path, plan in plans.items()}
    flat = np.concatenate([w.reshape(-1) for w in worth.values()])
    count = int(share * flat.size)
    chosen = np.full(flat.size, -1, np.float32)
    chosen[np.argsort(-flat, kind="stable")[:count]] = 1
    parts = np.split(chosen, np.cumsum([w.size for w in worth.values()])[:-1])
    return {path: part.reshape(w.shape) for (path, w), part in zip(worth.items(), parts, strict=True)}


def _worth(plan: Plan, gradient: np.ndarray) -> np.ndarray:
    """``sum |dL/dw|`` of each array, shaped as ``plan.array_grid``."""
    columns = np.zeros((plan.row_tiles, plan.columns))
    np.add.at(columns, plan.tile_index, np.abs(gradient))
    arrays = np.zeros(plan.array_grid)
    np.add.at(arrays, (plan.array_of_tile[:, None], plan.array_of_column), columns)
    return arrays
