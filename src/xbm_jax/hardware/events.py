"""What happens on a chip while it reads one example under a task's gains: counts by layer, from gains alone.

For layer l with ``reads`` of each column, ``passes`` of each read (DAC cycles, twice for two passes), groups g of
columns that are read together and columns m of a group:

    array_reads  = reads * passes * #{g: a column of g counts}
    word_lines   = reads * passes * sum over those g of rows(g)
    conversions  = reads * passes * slices * (columns that count, or their lines where both are converted)
    column_sums  = reads * passes * columns that count

A column counts where its gain is not 0, or that of one of its lines; no other is converted, and a group of which no
column counts is not read at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from xbm_jax.crossbar import Tiles
from xbm_jax.either import added_by, xp_of
from xbm_jax.hardware.inventories import Inventory
from xbm_jax.hardware.workloads import Workload
from xbm_jax.masks import ArrayChoice, Rule
from xbm_jax.models import Chip
from xbm_jax.tasks.watching import layer_gain

__all__ = ["Events", "count_events", "lines_on", "per_layer"]


class Events(NamedTuple):
    """Counts of one example, [L] unless said otherwise; NumPy arrays, or JAX's where something is traced.

    Attributes:
        array_reads: reads of a group of columns of an array, each pass its own.
        word_lines: word lines of these reads, driven or not.
        crossings: cells that these reads pass: word lines times bit lines, of lines that conduct.
        siemens: summed conductance of these cells, times reads and passes.
        conversions: of a bit line, or of a pair that is subtracted before the converter.
        column_sums: logical columns that count, read by read and pass by pass: one addition to the output each.
        lines: of each column that are converted, of each slice, [M].
        group_conversions: conversions of each group per read and pass, [G].
        groups_on: which groups are read, bool [G].
    """

    array_reads: Any
    word_lines: Any
    crossings: Any
    siemens: Any
    conversions: Any
    column_sums: Any
    lines: Any
    group_conversions: Any
    groups_on: Any


def lines_on(chip: Chip, rule: Rule | None, masks: Mapping[str, Any]) -> Any:
    """Which lines count, bool [2, M]: of positive and negative lines; ``None`` where the method gates none."""
    if rule is None or rule.computes_beside or not _gates(rule):
        return None
    found = [_layer_lines(rule, tiles, masks[path]) for path, tiles in chip.tiles.items()]
    return xp_of(*found).concatenate(found, -1)


def _gates(rule: Rule) -> bool:
    """Whether a rule has gains; one that rewrites all that it changes has none."""
    return not rule.rewrites_cells or isinstance(rule, ArrayChoice)


def _layer_lines(rule: Rule, tiles: Tiles, values: Any) -> Any:
    # What is stored decides. Codes of NumPy stay such in most rules, so that nothing is compiled for them.
    gain = layer_gain(rule, tiles, values) if rule.rewrites_cells else rule.apply(tiles, rule.encode(tiles, values))[1]
    assert gain is not None  # of a rule that gates columns
    on, xp = gain != 0, xp_of(gain)
    on = xp.stack([on, on]) if on.ndim == 2 else xp.moveaxis(on, 1, 0)
    return on.reshape(2, -1)


def count_events(workload: Workload, on: Any) -> Events:
    """Counts of one example with the lines ``on`` [2, M]; ``None``: all."""
    counted, numbers = workload.inventory, workload.inventory.per_layer
    on = np.ones(counted.siemens.shape, bool) if on is None else on
    xp, of = xp_of(on, counted.siemens), counted.layer_of_group
    # A pair subtracted before the converter shares it; without pairs both rows of ``on`` are the same line's.
    counts = lines = on[0] | on[1]
    if "digital" in counted.pairs:
        digital = xp.asarray(counted.where("digital"))[counted.layer_of_column]
        lines = xp.where(digital, on[0].astype(np.float32) + on[1], counts)
    sums = _by_group(counted, counts)
    group_conversions = numbers["slices"][of] * (sums if lines is counts else _by_group(counted, lines))
    groups_on = sums > 0
    times = numbers["reads"] * numbers["passes"]
    conducts, siemens = _conducting(workload, on, groups_on)
    return Events(
        array_reads=times * per_layer(counted, groups_on, "group"),
        word_lines=times * per_layer(counted, groups_on * counted.rows_of_group, "group"),
        crossings=times * numbers["slices"] * per_layer(counted, conducts * counted.rows_of_group, "group"),
        siemens=times * numbers["slices"] * per_layer(counted, siemens, "group"),
        conversions=times * per_layer(counted, group_conversions, "group"),
        column_sums=times * per_layer(counted, sums, "group"),
        lines=lines,
        group_conversions=group_conversions,
        groups_on=groups_on,
    )


def _conducting(workload: Workload, on: Any, groups_on: Any) -> tuple[Any, Any]:
    """Lines of each group through which current flows while it is read, and their conductance, [G] each."""
    counted, xp = workload.inventory, xp_of(on, workload.inventory.siemens)
    flows = xp.ones_like(on) if workload.off_lines == "conduct" else on
    if "none" in counted.pairs:
        single = xp.asarray(counted.where("none"))[counted.layer_of_column]
        flows = flows & xp.stack([xp.ones_like(single), ~single])
    lines = _by_group(counted, flows[0] + flows[1].astype(np.float32))
    siemens = _by_group(counted, flows[0] * counted.siemens[0] + flows[1] * counted.siemens[1])
    return groups_on * lines, groups_on * siemens


def _by_group(counted: Inventory, values: Any) -> Any:
    """Values of columns, added up by group: [G]."""
    return added_by(values, counted.group_of_column, counted.groups)


def per_layer(counted: Inventory, values: Any, of: str) -> Any:
    """Values of columns, groups or arrays, added up by layer: [L]."""
    return added_by(values, getattr(counted, f"layer_of_{of}"), len(counted.layers))
