"""What of a chip its cost depends on: every column, group of columns read together, and array, counted once.

Columns of all layers stand in one row, so that a task's gains become counts in a few operations, whatever the network.

    column   a logical column of one row tile; ``columns[l] = T * N`` of layer l
    group    the columns of one row tile in one array: they are read together
    array    the groups that stand above each other in one array: they are read one after another
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from xbm_jax.crossbar import Plan, Tiles
from xbm_jax.errors import SpecError
from xbm_jax.models import Chip, digital_weights, driven_lines, reads_in_order

__all__ = ["Inventory", "Numbers", "inventory"]


Numbers = Any
"""Arrays of NumPy, or JAX's where they are traced."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inventory:
    """A chip in numbers; a pytree. L layers, G groups, A arrays, M columns, in the chip's order.

    Attributes:
        layer_of_column, group_of_column: int32 [M].
        layer_of_group, array_of_group: int32 [G].
        layer_of_array: int32 [A].
        rows_of_group: word lines that a group drives, float32 [G].
        siemens: summed conductance of a column's lines in its row tile, the mean of its slices, float32 [2, M]: of the
            positive and the negative lines of pairs; without pairs the second is zero.
        levels_siemens: mean conductance of the layer's cells, float32 [L].
        per_layer: numbers of each layer by name, float32 [L]: ``reads`` per example, ``driven`` share of their word
            lines (:func:`xbm_jax.models.driven_lines`), ``macs``: multiply-adds of these, ``passes`` of each read
            (cycles, twice for two passes), ``slices``, ``kernel_rows``, ``outputs`` (columns of the kernel),
            ``weights``, ``cells`` that hold weights, ``arrays``, ``input_bits``, ``bit_lines`` a column, ``dac_bits``
            that a pass streams.
        converters: ``(bits, pulses)`` of each layer's conversions; static.
        layers: paths; static.
        first: number of the layer that reads the inputs; 0 where there is none; static.
        pairs: of each layer, ``"analog"`` or ``"digital"`` where it has differential pairs, or ``"none"``; static.
        array_shape: word and bit lines of each layer's arrays; static.
        head: inputs of the classifier; static.
        digital: weights that no array holds, the head left out; static.
    """

    layer_of_column: Numbers
    group_of_column: Numbers
    layer_of_group: Numbers
    array_of_group: Numbers
    layer_of_array: Numbers
    rows_of_group: Numbers
    siemens: Numbers
    levels_siemens: Numbers
    per_layer: dict[str, Numbers]
    converters: tuple[tuple[int, int], ...] = field(metadata={"static": True})
    layers: tuple[str, ...] = field(metadata={"static": True})
    first: int = field(metadata={"static": True})
    pairs: tuple[str, ...] = field(metadata={"static": True})
    array_shape: tuple[tuple[int, int], ...] = field(metadata={"static": True})
    head: int = field(metadata={"static": True})
    digital: int = field(metadata={"static": True})

    @property
    def groups(self) -> int:
        """G."""
        return self.rows_of_group.shape[0]

    @property
    def arrays(self) -> int:
        """A."""
        return self.layer_of_array.shape[0]

    def where(self, name: str) -> np.ndarray:
        """Which layers have pairs subtracted so, bool [L]."""
        return np.array([pair == name for pair in self.pairs])


_INDICES = ("layer_of_column", "group_of_column", "layer_of_group", "array_of_group", "layer_of_array")
_NO_COLUMNS = {
    **dict.fromkeys(_INDICES, np.zeros(0, np.int32)),
    **dict.fromkeys(("rows_of_group", "levels_siemens"), np.zeros(0, np.float32)),
    "siemens": np.zeros((2, 0), np.float32),
}
"""Of a chip without a layer on arrays, and what those of others are put behind."""
_NUMBERS = ("reads", "driven", "macs", "passes", "slices", "kernel_rows", "outputs", "weights", "cells", "arrays")
_NUMBERS += ("input_bits", "bit_lines", "dac_bits")


def inventory(chip: Chip, inputs: Any) -> Inventory:
    """Count a chip, on the host.

    Args:
        chip: programmed; its conductances are as they are now. All of it may be digital: nothing is counted then.
        inputs: examples, or their ``jax.ShapeDtypeStruct``, as :func:`xbm_jax.models.reads_per_example` takes them.

    Raises:
        SpecError: a layer with ideal converters: they have no cost. ModelError: see ``reads_per_example``.
    """
    reads, found = reads_in_order(chip, inputs), [_NO_COLUMNS]
    groups = arrays = 0
    for index, (path, tiles) in enumerate(chip.tiles.items()):
        if tiles.plan.spec.adc.bits is None:
            raise SpecError(f"{path}: Adc.bits", None, "a number of bits: no model says what an ideal converter costs")
        found.append(_layer(tiles, index, groups, arrays))
        groups, arrays = groups + len(found[-1]["rows_of_group"]), arrays + len(found[-1]["layer_of_array"])
    plans = [tiles.plan for tiles in chip.tiles.values()]
    driven, layers = driven_lines(chip, inputs), zip(chip.tiles, plans, strict=True)
    per_layer = [_numbers(plan, reads.get(path, 0), driven[path]) for path, plan in layers]
    joined = {name: np.concatenate([part[name] for part in found], axis=-1) for name in _NO_COLUMNS}
    return Inventory(
        **joined,
        per_layer={name: np.array([own[name] for own in per_layer], np.float32) for name in _NUMBERS},
        converters=tuple((int(plan.spec.adc.bits or 0), _pulses(plan)) for plan in plans),
        layers=tuple(chip.tiles),
        first=next((list(chip.tiles).index(path) for path in reads), 0),
        pairs=tuple(plan.spec.subtract if plan.spec.polarities == 2 else "none" for plan in plans),
        array_shape=tuple((plan.spec.rows, plan.spec.cols) for plan in plans),
        head=chip.num_features,
        digital=sum(digital_weights(chip).values()),
    )


def _layer(tiles: Tiles, layer: int, groups: int, arrays: int) -> dict[str, np.ndarray]:
    """One layer's columns, groups and arrays, numbered on from those before."""
    plan = tiles.plan
    above, beside = plan.array_grid
    group = np.arange(plan.row_tiles)[:, None] * beside + plan.array_of_column
    array = plan.array_of_tile[:, None] * beside + np.arange(beside)
    rows = np.bincount(plan.tile_index.reshape(-1), minlength=plan.row_tiles)
    siemens = _line_siemens(tiles)
    return {
        "layer_of_column": np.full(group.size, layer, np.int32),
        "group_of_column": (groups + group).reshape(-1).astype(np.int32),
        "layer_of_group": np.full(array.size, layer, np.int32),
        "array_of_group": (arrays + array).reshape(-1).astype(np.int32),
        "layer_of_array": np.full(above * beside, layer, np.int32),
        "rows_of_group": np.repeat(rows, beside).astype(np.float32),
        "siemens": siemens.reshape(2, -1),
        "levels_siemens": np.asarray(tiles.conductance).mean(keepdims=True).reshape(1),
    }


def _line_siemens(tiles: Tiles) -> np.ndarray:
    """Conductance of each tile's lines, summed over its rows, the mean of its slices: float32 [2, T, N]."""
    plan = tiles.plan
    cells = np.asarray(tiles.conductance)
    cells = cells.mean(axis=1).reshape(cells.shape[0], -1, plan.columns)
    sums = np.zeros((2, plan.row_tiles, plan.columns), np.float32)
    index = plan.tile_index.reshape(-1)
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(plan.row_tiles))
    sums[: len(cells)] = np.add.reduceat(cells[:, order], starts, axis=1)
    return sums


def _numbers(plan: Plan, reads: int, driven: float) -> dict[str, float]:
    """What ``_NUMBERS`` names."""
    spec = plan.spec
    return {
        "reads": reads,
        "driven": driven,
        "macs": reads * driven * plan.rows * plan.columns,
        "passes": spec.cycles * (2 if plan.two_pass else 1),
        "slices": spec.slices,
        "kernel_rows": plan.rows * plan.groups,
        "outputs": plan.columns,
        "weights": plan.rows * plan.columns,
        "cells": plan.rows * plan.columns * spec.bitlines_per_column,
        "arrays": plan.array_grid[0] * plan.array_grid[1],
        "input_bits": spec.input_bits,
        "bit_lines": spec.bitlines_per_column,
        "dac_bits": spec.dac_bits or spec.input_bits,
    }


def _pulses(plan: Plan) -> int:
    """Unit pulses that a read streams on a word line: the magnitude bits of its input codes."""
    bits = plan.spec.input_bits if plan.spec.cycles == 1 else plan.spec.dac_bits or plan.spec.input_bits
    return max(1, bits - 1 if plan.signed_inputs and not plan.two_pass and plan.spec.cycles == 1 else bits)
