"""Energy, time and area of reading: counts of events times what a technology says one of them costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xbm_jax.either import added_by, most_by, xp_of
from xbm_jax.hardware.components import COMPONENTS, Read, has
from xbm_jax.hardware.constants.converters import conversion_seconds, converter_m2
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.events import Events, count_events, lines_on
from xbm_jax.hardware.inventories import Inventory
from xbm_jax.hardware.workloads import Workload
from xbm_jax.masks import ArrayChoice, Binary, Levels, LowRank, Masked, Rule, Shift, Ternary
from xbm_jax.models import Chip
from xbm_jax.tasks import Task

__all__ = ["AREAS", "areas", "energies", "gain_kind", "read_of", "seconds"]


def gain_kind(rule: Rule | None) -> str:
    """What a column's gain takes in hardware: ``"gate"`` (or none at all), ``"shift"`` or ``"multiply"``."""
    if isinstance(rule, Levels | ArrayChoice):
        return "multiply"
    if isinstance(rule, Masked) and rule.granularity.on_columns and not isinstance(rule.alphabet, Binary | Ternary):
        return "shift" if isinstance(rule.alphabet, Shift) else "multiply"
    return "gate"


def beside_macs(chip: Chip, rule: Rule | None, reads: Any) -> Any:
    """Digital multiply-adds beside the arrays for one example, [L]: of LoRA ``reads * (K r + r N)``."""
    if not isinstance(rule, LowRank):
        return np.zeros(len(chip.tiles), np.float32)
    each = []
    for tiles in chip.tiles.values():
        plan, shapes = tiles.plan, rule.stored(tiles.plan)
        rank = shapes["up"].shape[1]
        each.append(rank * (plan.rows * plan.groups + plan.columns))
    return reads * np.array(each, np.float32)


def read_of(chip: Chip, task: Task, technology: Technology, workload: Workload) -> Read:
    """One example under a task's gains."""
    rule = task.method.rule
    events = count_events(workload, lines_on(chip, rule, task.trained["masks"]))
    beside = beside_macs(chip, rule, workload.inventory.per_layer["reads"])
    return Read(technology, workload, events, gain_kind(rule), beside)


def energies(read: Read) -> dict[str, Any]:
    """Joules of one example by component, [L] each, of those that the technology can price."""
    known = {name: c for name, c in COMPONENTS.items() if has(read.technology, c)}
    return {name: c.joules(read) for name, c in known.items()}


def seconds(technology: Technology, workload: Workload, events: Events) -> Any:
    """Time of each layer for one example, [L]: of its busiest array; all arrays of a layer work at once.

    NaN where the technology says neither how long a read nor how long a conversion takes.

    ``ceil(reads / copies) * passes * sum over the groups of an array of max(read_seconds, conversions per converter *
    conversion_seconds)``: groups of one array one after another, its converters share its conversions evenly.
    """
    counted = workload.inventory
    found = {kind: conversion_seconds(technology, *kind) for kind in dict.fromkeys(counted.converters)}
    if "read_seconds" not in technology and any(value is None for value in found.values()):
        return np.full(len(counted.layers), np.nan, np.float32)
    times = {kind: 0.0 if value is None else value for kind, value in found.items()}
    least, adcs = technology.get("read_seconds", 0.0), _converters_per_array(technology, counted)
    xp = xp_of(events.group_conversions, workload.copies, least, adcs, *times.values())
    each = xp.stack([xp.asarray(times[kind]) for kind in counted.converters])

    def read(conversions: Any, of: Any) -> Any:
        taken = xp.maximum(least, xp.ceil(conversions / adcs[of]) * each[of])
        return taken * (conversions > 0)

    if counted.groups == counted.arrays:  # one group an array: the one with most conversions takes longest
        slowest = read(most_by(events.group_conversions, counted.layer_of_group, len(each)), np.arange(len(each)))
    else:
        groups = read(events.group_conversions, counted.layer_of_group)
        slowest = most_by(added_by(groups, counted.array_of_group, counted.arrays), counted.layer_of_array, len(each))
    return xp.ceil(counted.per_layer["reads"] / workload.copies) * counted.per_layer["passes"] * slowest


def _converters_per_array(technology: Technology, counted: Inventory) -> Any:
    """ADCs of an array, [L]; one a bit line where the technology does not say how many share one."""
    columns = xp_of(counted.siemens).array([cols for _, cols in counted.array_shape], np.float32)
    share = technology.get("columns_per_adc")
    return columns if share is None else xp_of(share).ceil(columns / share)


AREAS: Mapping[str, tuple[str, Callable[[Inventory], list[float]]]] = {
    "cells": ("cell_m2", lambda c: [rows * cols for rows, cols in c.array_shape]),
    "DAC": ("dac_m2", lambda c: [rows for rows, _ in c.array_shape]),
    "sample and hold": ("sample_hold_m2", lambda c: [cols for _, cols in c.array_shape]),
    "shift and add": ("shift_add_m2", lambda c: [1 for _ in c.array_shape]),
    "input register": ("input_register_m2", lambda c: [1 for _ in c.array_shape]),
    "output register": ("output_register_m2", lambda c: [1 for _ in c.array_shape]),
}


def areas(technology: Technology, workload: Workload) -> dict[str, Any]:
    """Area of each layer's arrays and what stands beside each of them, by component, m2 [L]."""
    counted = workload.inventory
    arrays = counted.per_layer["arrays"] * workload.copies
    found = {
        name: arrays * np.array(count(counted), np.float32) * technology.get(constant)
        for name, (constant, count) in AREAS.items()
        if constant in technology
    }
    sizes = {kind: converter_m2(technology, kind[0]) for kind in dict.fromkeys(counted.converters)}
    if all(size is not None for size in sizes.values()):
        xp = xp_of(*sizes.values())
        each = xp.stack([xp.asarray(sizes[kind]) for kind in counted.converters])
        found["ADC"] = arrays * _converters_per_array(technology, counted) * each
    return found
