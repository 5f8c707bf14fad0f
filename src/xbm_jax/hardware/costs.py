"""What a chip and a task cost under a named technology: energy, time, area, wear and memory, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from xbm_jax.either import known, on_host, total
from xbm_jax.errors import DataError
from xbm_jax.hardware.adaption import (
    adaption_joules,
    backward_macs,
    write_seconds,
    writing,
    written,
)
from xbm_jax.hardware.components import COMPONENTS, has
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.events import count_events
from xbm_jax.hardware.inference import areas, energies, gain_kind, read_of, seconds
from xbm_jax.hardware.memory import bits_of, code_bits
from xbm_jax.hardware.workloads import Workload
from xbm_jax.masks import Method
from xbm_jax.models import Chip
from xbm_jax.tasks import Task
from xbm_jax.tasks.task import check_fits

__all__ = ["CostReport", "cost"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CostReport:
    """What one task on one chip costs; a pytree. Everything by layer has the layers' order.

    Attributes:
        energy_joules: of one example, by component, float32 [L].
        head_joules: of the classifier, for one example.
        leakage_joules: for one example, layer by layer.
        layer_seconds: of one example, [L].
        area_m2: by component, [L].
        events: counts for one example by name, [L]: ``array_reads``, ``word_lines``, ``conversions``, ``column_sums``.
        adaption_joules: of learning the task, by part.
        writing: cells that the task changes, writes, pulses, verify reads and cycles by its schedule, and tasks until
            the cell that is written most has had the writes that it is rated for (infinite: none is written).
        write_seconds: of writing it, or NaN where the technology does not say.
        macs: multiply-adds of one example, [L].
        cells: that hold weights, [L]; ``array_cells``: of the arrays that they stand on.
        batch: examples of a batch.
        task_bits: that the task keeps, in the form that it has.
        technology, layers, not_counted: the constants' name, paths, and components without a constant; static.
    """

    energy_joules: dict[str, Any]
    head_joules: Any
    leakage_joules: Any
    layer_seconds: Any
    area_m2: dict[str, Any]
    events: dict[str, Any]
    adaption_joules: dict[str, Any]
    writing: dict[str, Any]
    write_seconds: Any
    macs: Any
    cells: Any
    array_cells: Any
    task_bits: Any
    batch: Any
    technology: str = field(metadata={"static": True})
    layers: tuple[str, ...] = field(metadata={"static": True})
    not_counted: tuple[str, ...] = field(metadata={"static": True})

    @property
    def inference_joules(self) -> Any:
        """Of one example, everything that is counted."""
        return total(self.energy_joules) + self.head_joules + self.leakage_joules

    @property
    def by_component(self) -> dict[str, Any]:
        """Joules of one example by component, head and leakage among them."""
        parts = {name: part.sum(-1) for name, part in self.energy_joules.items()}
        return parts | {"head": self.head_joules, "leakage": self.leakage_joules}

    @property
    def adaption_total_joules(self) -> Any:
        """Of learning the task, everything that is counted."""
        return total(self.adaption_joules)

    @property
    def latency_seconds(self) -> Any:
        """Of one example, a layer after the other."""
        return self.layer_seconds.sum(-1)

    @property
    def interval_seconds(self) -> Any:
        """Between two examples, where each layer works on the next one as soon as it is free."""
        return self.layer_seconds.max(-1)

    @property
    def total_area_m2(self) -> Any:
        """Of all arrays and what stands beside them."""
        return total(self.area_m2)

    @property
    def utilisation(self) -> Any:
        """Share of the arrays' cells that hold weights."""
        return self.cells.sum(-1) / self.array_cells.sum(-1)

    @property
    def tops_per_watt(self) -> Any:
        """10^12 operations a joule: two a multiply-add of the layers on arrays."""
        return 2e-12 * self.macs.sum(-1) / self.inference_joules

    @property
    def batch_seconds(self) -> Any:
        """Of a batch, its examples one behind the other, pipelined."""
        return self.latency_seconds + (self.batch - 1) * self.interval_seconds


def cost(chip: Chip, task: Task, technology: Technology, workload: Workload) -> CostReport:
    """What ``task`` on ``chip`` costs, read and learned as ``workload`` says, by a technology's constants.

    Pure: ``jit`` over all arguments, ``vmap`` over tasks, technologies (:func:`~xbm_jax.hardware.stack_technologies`)
    or workloads. Counts and formulas: `docs/cost.md`. The task is counted in the form that it has: bits are those of
    ``xbm_jax.tasks.compact(chip, task)`` for a compact one.

    Args:
        workload: of this chip (:func:`xbm_jax.hardware.workload`).

    Raises:
        BankError: a task of another chip. DataError: a workload of another chip, or nothing on arrays. SpecError: bits
            that the technology's converter has no model for.
    """
    check_fits(chip, task)
    if workload.inventory.layers != tuple(chip.tiles):
        raise DataError("workload", "of another network", "xbm.hardware.workload(chip, inputs) of this chip")
    if not chip.tiles:
        raise DataError("chip.tiles", {}, "at least one layer on arrays: of what is digital the head alone has a price")
    # Each by itself, so that counts stay NumPy's where a technology alone is mapped over.
    task, technology, workload = (on_host(part) for part in (task, technology, workload))
    changes = written(chip, task.method.rule, task.trained["masks"])
    method, trained = task.method, task.trained
    counted = workload.inventory
    read = read_of(chip, task, technology, workload)
    events, energy, latency = read.events, energies(read), seconds(technology, workload, read.events)
    whole = count_events(workload, None)
    forward = energies(read._replace(events=whole))
    writes = writing(technology, workload, changes)
    backward = backward_macs(method, workload, whole.column_sums, read.beside)
    bits = _task_bits(method, chip, trained, task.state)
    time = write_seconds(technology, workload, changes)
    array_cells = np.array([rows * cols for rows, cols in counted.array_shape], np.float32)
    return CostReport(
        energy_joules=energy,
        head_joules=_head_joules(technology, method, trained, counted.head),
        leakage_joules=_leakage(technology, workload, latency),
        layer_seconds=latency,
        area_m2=areas(technology, workload),
        events={name: getattr(events, name) for name in ("array_reads", "word_lines", "conversions", "column_sums")},
        adaption_joules=adaption_joules(technology, workload, method, forward, backward, writes, bits),
        writing=writes,
        write_seconds=np.float32(np.nan) if time is None else time,
        macs=counted.per_layer["macs"],
        cells=counted.per_layer["cells"] * workload.copies,
        array_cells=counted.per_layer["arrays"] * array_cells * workload.copies,
        task_bits=bits,
        batch=workload.batch,
        technology=technology.name,
        layers=counted.layers,
        not_counted=_not_counted(technology, method, counted.digital, counted.per_layer["dac_bits"]),
    )


def _head_joules(technology: Technology, method: Method, trained: dict[str, Any], features: int) -> Any:
    """``features * outputs`` digital multiply-adds; zero where the technology cannot price them."""
    head = trained["head"]
    outputs = method.head.outputs(head) if head else 0
    return features * outputs * technology.get("half_mac_joules", 0.0)


def _leakage(technology: Technology, workload: Workload, latency: Any) -> Any:
    """Of all arrays, while one example goes through the layers one after another."""
    watts = technology.get("leakage_watts_per_array")
    if watts is None:
        return np.float32(0.0)
    arrays = (workload.inventory.per_layer["arrays"] * workload.copies).sum()
    return arrays * latency.sum() * watts


def _task_bits(method: Method, chip: Chip, trained: dict[str, Any], state: Any) -> Any:
    """Bits of a task in the form that it has."""
    kept = {"norms": trained["norms"], "head": trained["head"], "state": state}
    bits = bits_of(kept)
    if method.rule is None:
        return bits
    plans = {path: tiles.plan for path, tiles in chip.tiles.items()}
    return bits + sum(code_bits(method.rule, plans, trained["masks"]).values())


def _not_counted(technology: Technology, method: Method, digital: int, widths: Any) -> tuple[str, ...]:
    """What has no constant, or no model here."""
    rule = method.rule
    needless = {name for name, kind in (("shifts", "shift"), ("multipliers", "multiply")) if kind != gain_kind(rule)}
    if rule is None or not rule.computes_beside:
        needless |= {"beside"}
    # Word lines and DACs are two ways to price one thing, as are the two formulas of cells.
    needless |= (
        {"word lines", "DAC"} if "dac_joules" in technology or "word_line_joules" in technology else {"word lines"}
    )
    missing = [name for name, part in COMPONENTS.items() if name not in needless and not has(technology, part)]
    alone = {
        "head": "half_mac_joules",
        "leakage": "leakage_watts_per_array",
        "backward pass": "mac_joules",
        "task memory": "sram_write_joules_per_bit",
    }
    missing += [name for name, constant in alone.items() if constant not in technology]
    if not ("write_joules" in technology or "write_volts" in technology):
        missing.append("cell writes")
    wide = wider_drivers(technology, widths)
    if wide:
        missing.append(f"DACs of {wide} bits (its own have {technology.get('dac_bits'):.0f})")
    if digital:
        missing.append(f"{digital:,} weights that stayed digital")
    return tuple(missing)


def wider_drivers(technology: Technology, widths: Any) -> int:
    """The widest of a chip's DACs where the technology's number is of narrower ones; 0 elsewhere, or where traced."""
    own = technology.get("dac_bits")
    if own is None or not known((own, widths)):
        return 0
    widest = int(np.max(widths))
    return widest if widest > np.max(own) else 0
