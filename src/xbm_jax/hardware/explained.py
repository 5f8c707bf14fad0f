"""Where a number comes from: every term of a layer's energy with its formula, its counts, its constants and sources."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xbm_jax.errors import DataError
from xbm_jax.hardware.components import COMPONENTS, Component, Read, has
from xbm_jax.hardware.constants.converters import conversion_joules
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.inference import read_of
from xbm_jax.hardware.workloads import Workload
from xbm_jax.models import Chip
from xbm_jax.tasks import Task

__all__ = ["Term", "explain"]


@dataclass(frozen=True)
class Term:
    """One term of a layer's energy.

    Attributes:
        component: its name.
        formula: in words and constants.
        count: of events, where one constant prices them.
        constants: ``(name, value, source)`` of those that it uses.
        joules: of one example; ``None``: the technology has no constant for it.
    """

    component: str
    formula: str
    count: float | None
    constants: tuple[tuple[str, float, str], ...]
    joules: float | None

    def __str__(self) -> str:
        if self.joules is None:
            return f"{self.component}: not counted\n    {self.formula}"
        counted = "" if self.count is None else f"{self.count:,.0f} events; "
        lines = [f"{self.component}: {self.joules:.4g} J", f"    {counted}{self.formula}"]
        lines += [f"    {name} = {value:.6g}   {source}" for name, value, source in self.constants]
        return "\n".join(lines)


def explain(chip: Chip, task: Task, technology: Technology, workload: Workload, layer: str) -> list[Term]:
    """The terms of one layer's energy for one example, in the order of tables; they add up to the layer's.

    Raises:
        DataError: no such layer on arrays.
    """
    counted = workload.inventory
    if layer not in counted.layers:
        raise DataError("layer", layer, "one of " + ", ".join(counted.layers))
    at, read = counted.layers.index(layer), read_of(chip, task, technology, workload)
    return [_term(name, part, read, at) for name, part in COMPONENTS.items()]


def _term(name: str, component: Component, read: Read, at: int) -> Term:
    if not has(read.technology, component):
        return Term(name, component.formula, None, (), None)
    joules = float(component.joules(read)[at])
    count = None if component.count is None else float(component.count(read)[at])
    used = next(names for names in component.constants if all(n in read.technology for n in names))
    formula = component.formula
    if name == "ADC":
        count, formula, used = float(read.events.conversions[at]), _converter(read, at), _of_converter(read.technology)
    sources = dict(read.technology.sources)
    constants = tuple((n, float(read.technology.get(n)), sources.get(n, "given")) for n in used)
    return Term(name, formula, count, constants, joules)


def _converter(read: Read, at: int) -> str:
    """A column's mean conductance, and what one conversion at it costs."""
    counted = read.workload.inventory
    bits, pulses = counted.converters[at]
    own = counted.layer_of_column == at
    lines = 2 if counted.pairs[at] == "digital" else 1
    siemens = np.mean(counted.siemens.sum(0)[own]) / lines * read.workload.nonzero[at]
    each = conversion_joules(read.technology, bits, siemens, pulses)
    return (
        f"conversions x {float(each):.4g} J of {bits} bits by the {read.technology.converter!r} model at the mean "
        f"column of {float(siemens):.4g} S"
    )


def _of_converter(technology: Technology) -> tuple[str, ...]:
    shared = ("node_metres", "read_volts", "temperature_kelvin") if technology.converter != "constant" else ()
    return tuple(n for n in technology.constants if n.startswith("adc_") or n in shared)
