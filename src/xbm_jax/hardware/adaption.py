"""What learning a task costs a chip: passes of training, cells written, bits stored, and how far it wears the cells."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from xbm_jax.crossbar import Plan, Tiles
from xbm_jax.either import known, total, xp_of
from xbm_jax.hardware.components import pulse_joules
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.workloads import Workload
from xbm_jax.masks import Method, Rule
from xbm_jax.models import Chip

__all__ = [
    "adaption_joules",
    "backward_macs",
    "cell_joules",
    "changed",
    "seconds_of_a_write",
    "write_seconds",
    "writing",
    "written",
]


_Pulse = Literal["read", "write"]
_PULSES: tuple[_Pulse, _Pulse] = ("write", "read")


def written(chip: Chip, rule: Rule | None, masks: Mapping[str, Any]) -> dict[str, Any]:
    """Cells whose level a task changes, rows of arrays that hold such cells, and such arrays, float32 [L] each."""
    if rule is None or not rule.rewrites_cells:
        none = np.zeros(len(chip.tiles), np.float32)
        return {"cells": none, "rows": none, "arrays": none}
    found = [_changed_by(rule, tiles, masks[path]) for path, tiles in chip.tiles.items()]
    xp = jnp if not known(found) else np
    return {name: xp.stack([xp.asarray(own[name]) for own in found]) for name in found[0]}


@partial(jax.jit, static_argnames="rule")
def _changed_by(rule: Rule, tiles: Tiles, values: Any) -> dict[str, Any]:
    return changed(tiles, rule.apply(tiles, values)[0])


def changed(before: Tiles, after: Tiles) -> dict[str, Any]:
    """How many cells, rows of arrays and arrays of one layer differ in a level."""
    plan: Plan = before.plan
    differs = (before.levels != after.levels).any((0, 1)).reshape(-1, plan.columns)
    above, beside = plan.array_grid
    rows = jnp.zeros((differs.shape[0], beside), bool).at[:, plan.array_of_column].max(differs)
    arrays = jnp.zeros((above, beside), bool).at[plan.array_of_tile[plan.tile_index.reshape(-1)]].max(rows)
    count = jnp.sum(before.levels != after.levels)
    return {name: jnp.sum(v).astype(jnp.float32) for name, v in (("cells", count), ("rows", rows), ("arrays", arrays))}


def backward_macs(method: Method, workload: Workload, columns: Any, beside: Any) -> dict[str, Any]:
    """Multiply-adds of one example's backward pass.

    ``inputs``: dx of every layer but the first; ``values``: gradients of what the rule learns. dx is a product as large
    as the forward one. Gradients of weights (or of masks of weights) are as large again, of column gains one for each
    column sum, of LoRA twice its own. A head alone needs neither; norms need dx.
    """
    counted = workload.inventory
    macs = counted.per_layer["macs"]
    rule = method.rule
    if rule is None and method.norms == "frozen":
        return {"inputs": 0.0 * macs, "values": 0.0 * macs}
    inputs = macs * (np.arange(len(counted.layers)) != counted.first)
    if rule is None:
        values = 0.0 * macs
    elif rule.rewrites_cells:
        values = macs
    else:
        values = 2 * beside if rule.computes_beside else columns
    return {"inputs": inputs, "values": values}


def writing(technology: Technology, workload: Workload, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Writes of a task by its schedule.

    Cells, pulses, verify reads, cycles of the cell written most, tasks until it has had as many as it is rated for.
    """
    training, cells = workload.training, changes["cells"].sum()
    events = 1 if training.schedule == "end" else training.writes * training.rewritten
    writes = cells * events
    xp, rated = xp_of(cells), technology.get("endurance_writes", np.nan)
    cycles = xp.where(cells > 0, float(training.writes), 0.0)
    return {
        "cells": cells,
        "cell_writes": writes,
        "pulses": writes * technology.get("write_pulses", 1),
        "verify_reads": writes * technology.get("verify_reads", 0),
        "cycles": cycles,
        "tasks_until_worn": xp_of(cells, rated).where(cells > 0, rated / training.writes, np.inf),
    }


def cell_joules(technology: Technology, what: _Pulse, siemens: Any) -> Any:
    """Of one pulse on one cell: the technology's own number, or ``g V^2 t`` of its mean conductance; else ``None``."""
    own = technology.get("cell_read_joules" if what == "read" else "write_joules")
    return pulse_joules(technology, what, siemens) if own is None else own


def write_seconds(technology: Technology, workload: Workload, changes: Mapping[str, Any]) -> Any | None:
    """Time of writing a task by its schedule, one array after another; ``None`` without the constants for it."""
    training, once = workload.training, seconds_of_a_write(technology, changes)
    if once is None or training.schedule == "end":
        return once
    # Rows and arrays have to be visited for any of their cells.
    by_cell = technology.write_unit == "cell"
    return once * training.writes * (training.rewritten if by_cell else 1)


def seconds_of_a_write(technology: Technology, changes: Mapping[str, Any]) -> Any | None:
    """Time of writing all ``changes`` (cells, rows, arrays) once; ``None`` without the constants for it.

    By cells: ``cells * pulses * pulse seconds``; by rows: the rows that hold such a cell; by arrays: those arrays.
    """
    if technology.write_unit == "array" and "array_write_seconds" in technology:
        return changes["arrays"].sum() * technology.get("array_write_seconds")
    pulse = technology.get("write_pulse_seconds")
    return (
        None
        if pulse is None
        else changes[f"{technology.write_unit}s"].sum() * technology.get("write_pulses", 1) * pulse
    )


def adaption_joules(
    technology: Technology,
    workload: Workload,
    method: Method,
    forward: Mapping[str, Any],
    backward: Mapping[str, Any],
    writes: Mapping[str, Any],
    bits: Any,
) -> dict[str, Any]:
    """Joules of learning a task by part; parts without constants are absent.

    Args:
        forward: of one example with every column counted: what is off has a gradient too.
        backward: multiply-adds of one example.
        bits: of masks, norms and head that are written into memory.
    """
    training, mac = workload.training, technology.get("mac_joules")
    found = {"forward": training.examples * total(forward)}
    values = backward["values"].sum()
    if training.backward == "arrays":
        read_back = training.examples * total(forward) * (backward["inputs"].sum() > 0)
        found["backward on arrays"] = read_back
        if mac is not None:
            found["backward, digital"] = training.examples * values * mac
    elif mac is not None:
        found["backward, digital"] = training.examples * (backward["inputs"].sum() + values) * mac
    siemens = workload.inventory.levels_siemens.mean()
    write, check = (cell_joules(technology, what, siemens) for what in _PULSES)
    if write is not None:
        found["cell writes"] = writes["pulses"] * write
    if check is not None and "verify_reads" in technology:
        found["verify reads"] = writes["verify_reads"] * check
    if "sram_write_joules_per_bit" in technology:
        found["task memory"] = bits * technology.get("sram_write_joules_per_bit")
    return found
