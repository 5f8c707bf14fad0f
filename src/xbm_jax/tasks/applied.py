"""A task as it is evaluated: its rule applied once, its norms folded, so that one program serves tasks of many methods.

A whole network takes seconds to compile. What is left of a task here is gains, cells, folded norms and a head in real
numbers, whether it was just learned or comes compact from a bank, and whatever its method is called.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar import Tiles
from xbm_jax.masks import Gains, Method
from xbm_jax.masks.heads import Params
from xbm_jax.models import Chip
from xbm_jax.models.norm import folded_norms

__all__ = ["Applied", "applied"]


class Applied(NamedTuple):
    """The chip as a task has it, what else the task reads it with, and its head, which is a program of its own.

    Attributes:
        method: what is static about the network before the head.
        chip: with cells as the task has them.
        trained: ``{"masks": gains by layer, "norms": folded, "head": {}}``.
        head: in real numbers; ``{}`` where the task has none.
    """

    method: Method
    chip: Chip
    trained: dict[str, Any]
    head: Params

    @property
    def network(self) -> tuple[Method, Chip, dict[str, Any]]:
        """All but the head."""
        return self[:3]


def applied(chip: Chip, method: Method, trained: dict[str, Any], stats: dict[str, Any]) -> Applied:
    """A task's form for evaluation; ``trained`` may lack a head.

    A rule that computes beside the arrays stays what it is: its values are needed with every input.
    """
    tiles, found, head = _applied(method.learned, chip, trained, stats)
    beside = method.rule if method.computes_beside else Gains()
    return Applied(Method("", beside, "frozen"), chip.replace(tiles=tiles or chip.tiles), found, head)


@partial(jax.jit, static_argnames="method")
def _applied(
    method: Method, chip: Chip, trained: dict[str, Any], stats: dict[str, Any]
) -> tuple[Any, dict[str, Any], Params]:
    """The tiles, if the task writes other cells, what is trained, and the head."""
    rule, masks, tiles = method.rule, trained["masks"], {}
    if rule is None:
        masks = {path: _every_column(layer) for path, layer in chip.tiles.items()}
    elif not rule.computes_beside:
        both = {path: rule.apply(layer, masks[path]) for path, layer in chip.tiles.items()}
        masks = {path: _every_column(layer) if gain is None else gain for path, (layer, gain) in both.items()}
        tiles = {path: layer for path, (layer, _) in both.items()} if rule.rewrites_cells else {}
    norms = {path: trained["norms"].get(path, affine) for path, affine in chip.norms.items()}
    head = method.head.full(trained["head"]) if trained.get("head") else {}
    real = folded_norms(norms, stats, chip.network.epsilons), head
    norms, head = jax.tree.map(lambda a: a.astype(jnp.float32), real)
    return tiles, {"masks": masks, "norms": norms, "head": {}}, head


def _every_column(layer: Tiles) -> jax.Array:
    """Gains of a layer whose columns all count fully. They cost nothing beside its products, and save a program."""
    return jnp.ones((layer.plan.row_tiles, layer.plan.columns), jnp.float32)
