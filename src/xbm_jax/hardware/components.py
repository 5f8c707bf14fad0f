"""What reading consists of: every component with the formula that prices its events by a technology's constants.

A component of which a technology has no constant is not counted, and its name is kept: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from xbm_jax.either import xp_of
from xbm_jax.hardware.constants.converters import conversion_joules
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.events import Events, per_layer
from xbm_jax.hardware.workloads import Workload

__all__ = ["COMPONENTS", "OUTPUT_BITS", "Component", "Read", "has", "pulse_joules"]

OUTPUT_BITS = 16
"""Of a layer's sums, as they are added up and kept (ISAAC)."""


class Read(NamedTuple):
    """What a component's count is made from."""

    technology: Technology
    workload: Workload
    events: Events
    gain: str
    beside: Any

    @property
    def numbers(self) -> Mapping[str, Any]:
        return self.workload.inventory.per_layer

    @property
    def output_values(self) -> Any:
        """Values that a layer gives for one example."""
        return self.numbers["reads"] * self.numbers["outputs"]

    @property
    def bits_in(self) -> Any:
        """Bits fetched for one example: each read takes its kernel rows anew."""
        return self.numbers["reads"] * self.numbers["kernel_rows"] * self.numbers["input_bits"]

    @property
    def bits_out(self) -> Any:
        """Bits given on to the next layer, which takes as many a value as this one."""
        return self.output_values * self.numbers["input_bits"]


class Component(NamedTuple):
    """One line of the energy of a read.

    Attributes:
        formula: as ``--explain`` prints it.
        constants: of which all are needed; where several sets are given, the first that a technology has.
        joules: ``[L]``, from what is read.
        count: ``[L]``, the events, where one constant prices them.
    """

    formula: str
    constants: tuple[tuple[str, ...], ...]
    joules: Callable[[Read], Any]
    count: Callable[[Read], Any] | None = None


def _cells(read: Read) -> Any:
    events, workload = read.events, read.workload
    if "cell_read_joules" in read.technology:
        return events.crossings * workload.square * read.technology.get("cell_read_joules")
    ohmic = pulse_joules(read.technology, "read", events.siemens * workload.square)
    assert ohmic is not None  # the component's constants are there
    return ohmic


def _word_lines(read: Read) -> Any:
    technology, pulses = read.technology, np.array([p for _, p in read.workload.inventory.converters])
    each = technology.get("word_line_joules") + (pulses - 1) * technology.get("word_line_joules_per_pulse", 0.0)
    return read.events.word_lines * read.workload.nonzero * each


def _adc(read: Read) -> Any:
    counted, technology = read.workload.inventory, read.technology
    kinds = list(dict.fromkeys(counted.converters))
    if technology.converter != "neurosim_sar":  # all columns of a layer are alike
        found = {kind: conversion_joules(technology, kind[0], 0.0, kind[1]) for kind in kinds}
        xp = xp_of(*found.values())
        return read.events.conversions * xp.stack([found[kind] for kind in counted.converters])
    # Each column's own conductance drives its converter, of pairs converted apart the mean of its lines.
    share = (read.workload.nonzero / (1.0 + counted.where("digital")))[counted.layer_of_column]
    driven = (counted.siemens[0] + counted.siemens[1]) * share
    joules = conversion_joules(technology, kinds[0][0], driven, kinds[0][1])
    for kind in kinds[1:]:
        one = conversion_joules(technology, kind[0], driven, kind[1])
        xp = xp_of(one, joules, counted.layer_of_column)
        own = xp.asarray([k == kind for k in counted.converters])[counted.layer_of_column]
        joules = xp.where(own, one, joules)
    each = per_layer(counted, read.events.lines * joules, "column")
    return each * read.numbers["slices"] * read.numbers["reads"] * read.numbers["passes"]


def _priced(count: Callable[[Read], Any], what: str, constant: str) -> Component:
    """So many events, each at one constant."""

    def joules(read: Read) -> Any:
        return count(read) * read.technology.get(constant)

    return Component(f"{what} x {constant}", ((constant,),), joules, count)


def _gains(kind: str) -> Callable[[Read], Any]:
    """Column sums whose gain takes a circuit of that kind; none under a method of another."""
    return lambda read: _passless(read.events.column_sums, read) * (1.0 if read.gain == kind else 0.0)


def _drivers(read: Read) -> Any:
    """Word lines driven by DACs that the technology's number is of: no source says how much more a wider one costs."""
    widest = read.technology.get("dac_bits", np.inf)
    return read.events.word_lines * read.workload.nonzero * (read.numbers["dac_bits"] <= widest)


def _registers(read: Read) -> Any:
    into = _passless(read.events.word_lines * read.numbers["input_bits"], read)
    out = _passless(read.events.column_sums, read) * OUTPUT_BITS
    price = read.technology.get
    return into * price("input_register_joules_per_bit") + out * price("output_register_joules_per_bit")


def _additions(read: Read) -> Any:
    """Of partial sums to the output; of a pair's two conversions; for offset encoding of each array's input codes, once
    a read, and of their sum from each column.
    """
    counted, sums = read.workload.inventory, _passless(read.events.column_sums, read)
    pairs = counted.where("digital") * read.events.column_sums * read.numbers["slices"]
    offsets = counted.where("none") * (_passless(read.events.word_lines, read) + sums)
    return sums + pairs + offsets


def pulse_joules(technology: Technology, what: Literal["read", "write"], siemens: Any) -> Any:
    """``g V^2 t`` of one pulse over conductances; ``None`` without the volts and seconds for it."""
    volts, time = technology.get(f"{what}_volts"), technology.get(f"{what}_pulse_seconds")
    return None if volts is None or time is None else siemens * volts**2 * time


def _passless(count: Any, read: Read) -> Any:
    """Per read, where the passes of one are added up before."""
    return count / read.numbers["passes"]


COMPONENTS: Mapping[str, Component] = {
    "cells": Component(
        "cells passed x mean square of inputs x cell_read_joules, or x their conductance x read_volts^2 x "
        "read_pulse_seconds",
        (("cell_read_joules",), ("read_volts", "read_pulse_seconds")),
        _cells,
    ),
    "word lines": Component(
        "word lines driven x (word_line_joules + (pulses - 1) x word_line_joules_per_pulse)",
        (("word_line_joules",),),
        _word_lines,
    ),
    "DAC": _priced(_drivers, "word lines driven, of layers whose drivers have no more than dac_bits", "dac_joules"),
    "ADC": Component("conversions x the converter's model", ((),), _adc),
    "sample and hold": _priced(lambda r: r.events.conversions, "conversions", "sample_hold_joules"),
    "shift and add": _priced(lambda r: r.events.conversions, "conversions", "shift_add_joules"),
    "accumulation": _priced(
        _additions,
        "(column sums + subtractions of pairs after conversion + sums of inputs for offsets)",
        "accumulate_joules",
    ),
    "shifts": _priced(_gains("shift"), "column sums under a gain of a power of two", "shift_joules"),
    "multipliers": _priced(_gains("multiply"), "column sums under a gain of another number", "multiply_joules"),
    "registers": Component(
        "input bits of arrays read x input_register_joules_per_bit + 16 bits a column sum x "
        "output_register_joules_per_bit",
        (("input_register_joules_per_bit", "output_register_joules_per_bit"),),
        _registers,
    ),
    "buffer": _priced(lambda r: r.bits_in + r.bits_out, "bits into and out of a layer", "buffer_joules_per_bit"),
    "bus": _priced(lambda r: r.bits_in + r.bits_out, "bits into and out of a layer", "bus_joules_per_bit"),
    "router": _priced(lambda r: r.bits_out, "bits out of a layer", "router_joules_per_bit"),
    "activation": _priced(lambda r: r.output_values, "output values", "activation_joules"),
    "norms": _priced(lambda r: r.output_values, "output values (one scale and shift each)", "half_mac_joules"),
    "beside": _priced(lambda r: r.beside, "digital multiply-adds beside the arrays", "half_mac_joules"),
}
"""Of the layers' reads, in the order of tables. The head and leakage stand beside them: they are no layer's."""


def has(technology: Technology, component: Component) -> bool:
    """Whether a technology has the constants of one of a component's formulas."""
    return any(all(name in technology for name in names) for names in component.constants)
