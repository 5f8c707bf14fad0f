"""Costs of tasks as a table, JSON and CSV; no number without its technology's name."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from xbm_jax.hardware import CostReport
from xbm_jax.report.table import Column, print_columns, print_line

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["CostRow", "cost_csv", "cost_json", "print_costs"]


@dataclass(frozen=True)
class CostRow:
    """What one task costs by one technology.

    Args:
        task: its name.
        method: how it was learned.
        accuracy: on its test images, where it is known.
        report: what :func:`xbm_jax.hardware.cost` says.
    """

    task: str
    method: str
    accuracy: float | None
    report: CostReport

    @property
    def numbers(self) -> dict[str, float]:
        """What tables and files hold, in SI units."""
        report = self.report
        writes = {name: float(value) for name, value in report.writing.items()}
        return {
            "inference_joules": float(report.inference_joules),
            **{f"{_slug(name)}_joules": float(value) for name, value in report.by_component.items()},
            "latency_seconds": float(report.latency_seconds),
            "interval_seconds": float(report.interval_seconds),
            "batch_seconds": float(report.batch_seconds),
            "area_m2": float(report.total_area_m2),
            "utilisation": float(report.utilisation),
            "tops_per_watt": float(report.tops_per_watt),
            "adaption_joules": float(report.adaption_total_joules),
            **{f"adaption_{_slug(name)}_joules": float(value) for name, value in report.adaption_joules.items()},
            "write_seconds": float(report.write_seconds),
            "task_bits": float(report.task_bits),
            "cells_written": writes["cells"],
            "cell_writes": writes["cell_writes"],
            "tasks_until_worn": writes["tasks_until_worn"],
        }


def _slug(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_")


def _columns(rows: Sequence[CostRow]) -> list[Column]:
    components = rows[0].report.by_component
    # The largest components have a column of their own, the small ones share one.
    sizes = {name: max(float(row.report.by_component[name]) for row in rows) for name in components}
    largest = [name for name in sorted(sizes, key=lambda n: -sizes[n]) if sizes[name]][:5]

    def rest(row: CostRow) -> float:
        return float(row.report.inference_joules) - sum(float(row.report.by_component[name]) for name in largest)

    return [
        Column("task", lambda row: row.task, numeric=False),
        Column("method", lambda row: row.method, numeric=False),
        Column("accuracy %", lambda row: "-" if row.accuracy is None else f"{100 * row.accuracy:.1f}"),
        Column("inference uJ", lambda row: _scaled(row.report.inference_joules, 1e6)),
        *(Column(f"{name} uJ", lambda row, name=name: _scaled(row.report.by_component[name], 1e6)) for name in largest),
        Column("rest uJ", lambda row: _scaled(rest(row), 1e6)),
        Column("latency us", lambda row: _scaled(row.report.latency_seconds, 1e6)),
        Column("TOPS/W", lambda row: _scaled(row.report.tops_per_watt, 1)),
        Column("adaption J", lambda row: _scaled(row.report.adaption_total_joules, 1)),
        Column("writes J", lambda row: _scaled(row.report.adaption_joules.get("cell writes", math.nan), 1)),
        Column("cells written", lambda row: f"{float(row.report.writing['cells']):,.0f}"),
        Column("tasks until worn", lambda row: _many(float(row.report.writing["tasks_until_worn"]))),
    ]


def print_costs(rows: Sequence[CostRow], console: Console) -> None:
    """A table for each technology, and below what it does not count; wide or narrow as other tables."""
    for name in dict.fromkeys(row.report.technology for row in rows):
        own = [row for row in rows if row.report.technology == name]
        first = own[0].report
        area = f", {_scaled(first.total_area_m2, 1e6)} mm2" if first.area_m2 else ""
        print_line(f"{name}: one example; arrays {float(first.utilisation):.1%} filled{area}", console)
        print_columns(_columns(own), own, ("writes J", "latency us", "tasks until worn", "TOPS/W"), console)
        missing = list(dict.fromkeys(name for row in own for name in row.report.not_counted))
        print_line(f"not counted by {name}: {', '.join(missing) or 'nothing'}", console)


def cost_json(rows: Sequence[CostRow]) -> list[dict[str, Any]]:
    """Everything, by layer too, as plain values; infinite and unknown numbers are ``null``."""
    return [
        {
            "technology": row.report.technology,
            "task": row.task,
            "method": row.method,
            "accuracy": row.accuracy,
            **{name: _finite(value) for name, value in row.numbers.items()},
            "not_counted": list(row.report.not_counted),
            "layers": list(row.report.layers),
            "by_layer": {
                "energy_joules": _plain(row.report.energy_joules),
                "seconds": _plain(row.report.layer_seconds),
                "area_m2": _plain(row.report.area_m2),
                **{name: _plain(value) for name, value in row.report.events.items()},
            },
        }
        for row in rows
    ]


def cost_csv(rows: Sequence[CostRow]) -> str:
    """A line a task and technology; a component that a technology does not count is empty."""
    names = list(dict.fromkeys(name for row in rows for name in row.numbers))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["technology", "task", "method", "accuracy", *names])
    for row in rows:
        numbers = {name: _finite(value) for name, value in row.numbers.items()}
        cells = ["" if numbers.get(name) is None else f"{numbers[name]:.7g}" for name in names]
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.6g}"
        writer.writerow([row.report.technology, row.task, row.method, accuracy, *cells])
    return text.getvalue()


def _scaled(value: Any, factor: float) -> str:
    """Three figures of a number in another unit."""
    number = float(value) * factor
    if not math.isfinite(number):
        return "-"
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"


def _many(count: float) -> str:
    return "unlimited" if math.isinf(count) else "-" if math.isnan(count) else f"{count:,.0f}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _plain(tree: Any) -> Any:
    return jax.tree.map(lambda a: np.asarray(a).tolist(), tree)
