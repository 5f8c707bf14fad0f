"""The two compiled functions of a server, and the sizes that they are compiled for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.examples import count
from xbm_jax.masks import Gains, Head, Method
from xbm_jax.models import Chip, forward
from xbm_jax.promotion import numpy_promotion
from xbm_jax.serving.values import Common, Layout
from xbm_jax.streams import stream

__all__ = ["answered", "mixed_logits", "pieces", "single_logits"]

_STEP = 8
"""Each size that programs are compiled for is so many times the next smaller one, in examples as in tasks."""


def answered(
    common: Common, chip: Chip, vectors: Sequence[jax.Array], index: np.ndarray, inputs: Any, key: jax.Array | None
) -> jax.Array:
    """Outputs of one batch; ``index`` says whose the first examples are, those behind only fill it up.

    One task's examples take the path of one task. Of several tasks only those in the batch are given to the program, in
    as many places as it was compiled for.
    """
    size = count(inputs)
    distinct = np.unique(index)
    if len(distinct) == 1:
        return single_logits(common.head, common.layout, chip, vectors[distinct[0]], inputs, key)
    room = min(size, _STEP) if len(distinct) <= _STEP else size
    chosen = [*distinct, *[distinct[0]] * (room - len(distinct))]
    places = np.zeros(size, np.int32)
    places[: len(index)] = np.searchsorted(distinct, index)
    return mixed_logits(common.head, common.layout, chip, tuple(vectors[i] for i in chosen), places, inputs, key)


@partial(jax.jit, static_argnames=("head", "layout"))
@numpy_promotion
def mixed_logits(
    head: Head,
    layout: Layout,
    chip: Chip,
    vectors: tuple[jax.Array, ...],
    index: jax.Array,
    inputs: Any,
    key: jax.Array | None,
) -> jax.Array:
    """Outputs [n, outputs] of examples, each under the task of its index.

    Gains and norms are gathered per example. Heads are not: all of them answer every example, and the task's own answer
    is taken, since a head for each example would have to be copied out.
    """
    tasks, method = layout.tree(jnp.stack(vectors)), Method("", Gains(), norms="affine", head=head)
    body = {"masks": tasks["masks"], "norms": tasks["norms"]}

    def features(i: jax.Array, example: Any, place: jax.Array) -> jax.Array:
        own_key = None if key is None else stream(key, place)
        own, one = jax.tree.map(lambda a: a[i], body), jax.tree.map(lambda a: a[None], example)
        found = forward(chip, method, own, chip.stats, one, gain_at="columns", key=own_key, features=True)
        return found[0][0]

    places = jnp.arange(len(index))
    seen = jax.vmap(features)(index, inputs, places)
    return jax.vmap(head.apply, in_axes=(0, None))(tasks["head"], seen)[index, places]


@partial(jax.jit, static_argnames=("head", "layout"))
@numpy_promotion
def single_logits(
    head: Head, layout: Layout, chip: Chip, vector: jax.Array, inputs: Any, key: jax.Array | None
) -> jax.Array:
    """Outputs [n, outputs] of examples that are all one task's; gains fold into weights where a read folds."""
    method = Method("", Gains(), norms="affine", head=head)
    return forward(chip, method, layout.tree(vector), chip.stats, inputs, key=key)[0]


def pieces(examples: int, largest: int) -> Iterator[tuple[int, int]]:
    """How so many examples are cut: (first, size) of each batch, the last of which may have to be filled up.

    Sizes are ``largest`` and what is left of it divided by eight once and again, so that few programs are compiled, and
    less than half of what is computed is for nothing.
    """
    sizes = [largest]
    while sizes[-1] >= _STEP:
        sizes.append(sizes[-1] // _STEP)
    start = 0
    while start < examples:
        left = examples - start
        size = min((s for s in sizes if s >= left), default=largest)
        if size > 2 * left:
            size = max((s for s in sizes if s <= left), default=size)
        yield start, size
        start += size
