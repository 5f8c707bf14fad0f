"""The cost model beside what others print: ISAAC's table, converter formulas, NeuRRAM's silicon, NeuroSim on VGG8.

Counts come from chips that are programmed here, prices from the technologies of `xbm_jax.hardware`. Nothing is fitted.

Command:   python -m experiments.cost_checks                (--no-large: without VGG8)
Hardware:  two CPU cores; VGG8 has 104 million cells and takes 2 GB of memory for a few seconds.
Time:      20 seconds on cores that other jobs kept busy, most of it VGG8. No data is needed.
Writes:    <out>/cost_isaac.md, cost_converters.md, cost_neurram.md, cost_vgg8.md, cost_puma.md, cost_masks.md;
           cost_components.md, cost_constants.md and cost_sources.md: which component a technology prices, by which
           constants, from where.

Expect:    ISAAC's table to 0.2 %, its array read to 3 %; both converter formulas to their printed digits; NeuRRAM
           within 10 %; of VGG8 the converters at twice NeuroSim's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from experiments.suite.pages import table
from flax import nnx

import xbm_jax as xbm
from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, with_signed_inputs
from xbm_jax.hardware import Activity, CostReport, Technology, cost, load_technology, technologies, workload
from xbm_jax.hardware.components import COMPONENTS, OUTPUT_BITS
from xbm_jax.hardware.constants.converters import conversion_joules
from xbm_jax.hardware.constants.names import CONSTANTS, CONVERTERS
from xbm_jax.models import Chip, Preprocess, backbone, network_from_module, program
from xbm_jax.storage.files import replace_file

PLAIN = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        out: folder of the tables.
        large: VGG8 too.
    """

    out: Path = Path("docs/tables")
    large: bool = True


def main(config: Config) -> None:
    """Compute and write every table."""
    for name, make in (QUICK | (LARGE if config.large else {})).items():
        config.out.mkdir(parents=True, exist_ok=True)
        replace_file(config.out / f"{name}.md", text := make())
        print(f"{name}.md\n\n{text}")


# ---------------------------------------------------------------------------------------------------------------------
# ISAAC, 32 nm

READ_SECONDS, ARRAYS, LINES, IMAS, READS = 100e-9, 8, 8 * 128, 12, 16
BITS_IN, OUTPUTS = 2048 * 8, 128
IMA_TABLE = {  # what happens in one read of an IMA's eight arrays, and the paper's milliwatts
    "ADC": ("adc_joules", LINES, 16.0),
    "DAC": ("dac_joules", LINES, 4.0),
    "sample and hold": ("sample_hold_joules", LINES, 0.01),
    "arrays": ("cell_read_joules", LINES * 128, 2.4),
    "shift and add": ("shift_add_joules", LINES, 0.2),
    "input register": ("input_register_joules_per_bit", LINES, 1.24),
    "output register": ("output_register_joules_per_bit", OUTPUTS * OUTPUT_BITS / READS, 0.23),
}
TILE_TABLE = {  # likewise in the sixteen reads of an input, of one IMA
    "eDRAM": ("buffer_joules_per_bit", 2 * (BITS_IN + OUTPUTS * OUTPUT_BITS), 20.7),
    "bus": ("bus_joules_per_bit", BITS_IN + OUTPUTS * OUTPUT_BITS, 7.0),
    "router, a quarter": ("router_joules_per_bit", BITS_IN + OUTPUTS * OUTPUT_BITS, 42 / 4),
    "sigmoid": ("activation_joules", OUTPUTS, 0.52),
    "shift and add of the tile": ("accumulate_joules", OUTPUTS, 0.05),
}
NOT_IN_TILE = 0.4 + 1.68
"""Milliwatts of max pooling and of the tile's output register, which no constant counts."""
ARRAY_READ_PICOJOULES = 24.1e-3 * READ_SECONDS / ARRAYS * 1e12
ARRAY_SPEC = CrossbarSpec(
    rows=128, cols=128, weight_bits=8, input_bits=8, dac_bits=1, encoding="offset", cell=Cell(bits=2), adc=Adc(bits=8)
)
OF_ARRAY = ("ADC", "DAC", "sample and hold", "cells", "shift and add", "registers")


def isaac_milliwatts() -> dict[str, tuple[float, float]]:
    """Ours and the paper's, by part, then the sums."""
    of = {name: float(value) for name, value in load_technology("isaac-32nm").constants.items()}
    ima = {p: (1e3 * of[name] * count / READ_SECONDS, w) for p, (name, count, w) in IMA_TABLE.items()}
    tile = {p: (1e3 * IMAS * of[c] * n / (READS * READ_SECONDS), w) for p, (c, n, w) in TILE_TABLE.items()}
    one, beside = (sum(ours for ours, _ in part.values()) for part in (ima, tile))
    sums = {"IMA": (one, 24.1), "12 IMAs": (12 * one, 289.0), "tile": (12 * one + beside + NOT_IN_TILE, 330.0)}
    return ima | tile | sums


def array_read_picojoules() -> dict[str, float]:
    """Of one read of one filled 128 x 128 array, by component, counted by `cost` from a programmed kernel."""
    chip = dense_chip(ARRAY_SPEC, 128, 32)
    report = read_cost(chip, load_technology("isaac-32nm"))
    reads = float(np.sum(report.events["array_reads"]))
    assert reads == ARRAY_SPEC.cycles and float(report.utilisation) == 1  # one array, all of it
    return {name: 1e12 * float(np.sum(report.energy_joules[name])) / reads for name in OF_ARRAY}


def isaac_page() -> str:
    powers = [[part, *_two(*pair)] for part, pair in isaac_milliwatts().items()]
    parts = array_read_picojoules()
    read = [[name, f"{pj:.2f}"] for name, pj in parts.items()]
    total = sum(parts.values())
    read.append(["together", f"{total:.1f}"])
    read.append([f"paper: 24.1 mW x 100 ns / 8 = {ARRAY_READ_PICOJOULES:.1f}", f"{_off(total, ARRAY_READ_PICOJOULES)}"])
    return (
        "Power, mW: ISAAC's table 1 and what the constants of `isaac-32nm` give for what happens in 100 ns.\n\n"
        f"{table(['part', 'ours', 'paper', 'off'], powers)}\n"
        "The tile includes max pooling and its output register (2.08 mW), which no constant counts.\n\n"
        "Energy of one read of one 128 x 128 array with its 8-bit converter, pJ, from our own counts: a kernel of 128 "
        "x 32 eight-bit weights, offset encoding on four two-bit cells, fills one array; `cost` of its eight one-bit "
        "cycles at full drive, divided by eight.\n\n"
        f"{table(['component', 'pJ a read'], read)}\n"
        "What is off is the output register: ISAAC's 16-bit weights and inputs finish 16 sums in 16 reads of an array, "
        "the 8-bit ones here 32 in 8.\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Converters

NEUROSIM = {1e4: 0.15, 1e3: 0.79, 1e2: 7.2}
"""Picojoules of 8 bits at 22 nm by a column's ohms, as printed."""
SURVEY = {
    22: (0.457, 0.463, 0.527, 0.649, 0.847),
    32: (0.924, 0.936, 1.065, 1.312, 1.714),
    65: (3.50, 3.55, 4.04, 4.97, 6.49),
}
"""Picojoules of 4 to 8 bits by node, as printed."""


def converters_page() -> str:
    sar, survey = load_technology("neurosim-22nm"), load_technology("survey-22nm")
    ohmic = [[f"{ohms:,.0f} ohm", *_two(_picojoules(sar, 8, 1 / ohms), pj)] for ohms, pj in NEUROSIM.items()]
    fits = []
    for nanometres, printed in SURVEY.items():
        own = survey.with_constants(node_metres=nanometres * 1e-9)
        fits += [
            [f"{nanometres} nm, {bits} bits", *_two(_picojoules(own, bits, 0.0), pj)]
            for bits, pj in enumerate(printed, 4)
        ]
    alike = [
        [name, f"{_picojoules(load_technology(name), 8, 1e-4, 8):.3f}", load_technology(name).converter]
        for name in technologies()
    ]
    return (
        "Energy of a conversion, pJ. NeuroSim's SAR converter, 8 bits at 22 nm, by the column's resistance:\n\n"
        f"{table(['column', 'ours', 'printed', 'off'], ohmic)}\n"
        "The fit to Murmann's survey at 100 MS/s, by node and bits:\n\n"
        f"{table(['converter', 'ours', 'printed', 'off'], fits)}\n"
        "The same 8 bits by technology, at a column of 10,000 ohm and 8 input pulses:\n\n"
        f"{table(['technology', 'pJ', 'model'], alike)}"
    )


def _picojoules(technology: Technology, bits: int, siemens: float, pulses: int = 1) -> float:
    return 1e12 * float(conversion_joules(technology, bits, siemens, pulses))


# ---------------------------------------------------------------------------------------------------------------------
# NeuRRAM, 130 nm

TOPS_PER_WATT = {1: 43.1, 2: 40.3, 3: 23.1, 4: 16.0, 5: 11.0, 6: 8.26, 7: 7.75, 8: 6.44}
"""Measured, by input bits; converters have two bits more."""
FITTED = (2, 8)


def neurram_tops_per_watt(input_bits: int) -> float:
    """Of one read of a 256 x 256 array of 4-bit weights, all inputs driven, by `cost`."""
    spec = CrossbarSpec(
        rows=256,
        cols=256,
        weight_bits=4,
        input_bits=input_bits,
        encoding="offset",
        cell=Cell(bits=4, on_off=4.0, g_max_siemens=4e-6),
        adc=Adc(bits=input_bits + 2),
    )
    chip = dense_chip(spec, 256, 256)
    if input_bits > 1:  # signed codes: a magnitude of one bit less is streamed
        chip = chip.replace(tiles={path: with_signed_inputs(tiles, True) for path, tiles in chip.tiles.items()})
    return float(read_cost(chip, load_technology("neurram-130nm")).tops_per_watt)


def neurram_page() -> str:
    rows = []
    for bits, measured in TOPS_PER_WATT.items():
        found = neurram_tops_per_watt(bits)
        how = "fitted" if bits in FITTED else "predicted"
        rows.append([f"({bits + 2}, {bits})", f"{measured:g}", f"{found:.2f}", f"{_off(found, measured)}", how])
    return (
        "TOPS/W of one 256 x 256 array of 4-bit weights, by (output, input) bits: NeuRRAM's silicon, and `cost` with "
        "the constants of `neurram-130nm`, which the components measured at (4, 2) and (10, 8) decide.\n\n"
        f"{table(['(output, input) bits', 'measured', 'ours', 'off', ''], rows)}\n"
        "At (8, 6) the paper's own components, 108.9 fJ an operation, make 9.18 TOPS/W and not its 8.26; ours "
        "are 2 % below them.\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# PUMA, 32 nm


def puma_page() -> str:
    of = {name: float(value) for name, value in load_technology("puma-32nm").constants.items()}
    write = 1e9 * 128 * 128 * of["write_joules"] * of["write_pulses"]
    chip = dense_chip(ARRAY_SPEC, 128, 32)
    report = read_cost(chip, load_technology("puma-32nm"))
    read = sum(float(np.sum(report.energy_joules[name])) for name in OF_ARRAY) / ARRAY_SPEC.cycles
    rows = [
        [
            "write of a whole array, nJ",
            f"{write:.3g}",
            "22.6",
            "taken as given: `write_joules` is this over 16,384 cells",
        ],
        ["write of a whole array, us", f"{1e6 * of['array_write_seconds']:.4g}", "10.97", "taken as given"],
        [
            "read of a whole array as memory, nJ",
            "not counted",
            "6.5",
            "no term: a product never reads cells one by one",
        ],
        ["one-bit read of an array, nJ", f"{1e9 * read:.3f}", "-", "our counts, its constants, component by component"],
    ]
    return (
        "PUMA's simulator has these as constants, so agreement with them checks nothing but units.\n\n"
        f"{table(['what', 'ours', 'its own', 'how'], rows)}\n"
        "Its lumped product of 2.74 mW and 100 ns an array (0.274 nJ) is not used.\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# VGG8 at 22 nm, beside NeuroSim V1.4

STAGES = (128, 128, 256, 256, 512, 512)
NEUROSIM_MICROJOULES = {"ADC": 19.4, "accumulation": 3.8, "rest": 12.4}
VGG8_SPEC = CrossbarSpec(
    rows=128,
    cols=128,
    weight_bits=8,
    input_bits=8,
    dac_bits=1,
    encoding="offset",
    cell=Cell(bits=1, on_off=17.0, g_max_siemens=1e-5),
    adc=Adc(bits=5),
)
DRIVEN = 0.25
"""Of (word line, cycle) pairs: half of the inputs are zero, of the others half of the bits."""


class Vgg8(nnx.Module):
    """As NeuroSim runs it. Its last layer is on arrays too; a head of 10 x 10, which is digital, stands behind it."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        channels = (3, *STAGES)
        for i, width in enumerate(STAGES):
            setattr(self, f"conv{i}", nnx.Conv(channels[i], width, (3, 3), padding=1, use_bias=False, rngs=rngs))
        self.fc1 = nnx.Linear(8192, 1024, use_bias=False, rngs=rngs)
        self.fc2 = nnx.Linear(1024, 10, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(10, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(len(STAGES)):
            x = nnx.relu(getattr(self, f"conv{i}")(x))
            if i % 2:
                x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        return self.head(self.fc2(nnx.relu(self.fc1(x.reshape(len(x), -1)))))


OHMIC = {"read_pulse_seconds": 1e-8}
"""NeuroSim V1.4's read pulse (Param.cpp, readPulseWidth), for what its cells would take were they counted."""


@cache
def vgg8_report() -> CostReport:
    """Gaussian weights; inputs half zero."""
    network = network_from_module(
        lambda: Vgg8(rngs=nnx.Rngs(0)), name="vgg8", head="head", preprocess=PLAIN, image_size=32
    )
    chip = program(backbone(network, gaussian(network.shapes)), VGG8_SPEC, jax.random.key(0))
    drive = dict.fromkeys(chip.tiles, DRIVEN)
    return read_cost(chip, load_technology("neurosim-22nm").with_constants(**OHMIC), Activity(drive, drive))


def vgg8_page() -> str:
    report = vgg8_report()
    ours = {name: 1e6 * float(np.sum(part)) for name, part in report.by_component.items()}
    digital = [name for name in ours if name not in ("ADC", "cells", "accumulation", "norms", "head")]
    assert not any(ours[name] for name in digital), "a component that the page does not show"
    rows = [
        ["ADC", f"{ours['ADC']:.1f}", "19.4"],
        ["accumulation", f"{ours['accumulation']:.1f}", "3.8"],
        ["interconnect, buffers", "not counted", "6.9"],
        ["the rest: decoders, drivers, array wires, pooling", "not counted", "5.5"],
        ["together", f"{ours['ADC'] + ours['accumulation']:.1f}", "35.6"],
        ["current through the cells for 10 ns, were it counted", f"({ours['cells']:.0f})", "not counted"],
        ["norms (float16, one an output value)", f"{ours['norms']:.1f}", "not counted"],
    ]
    conversions, gop = float(np.sum(report.events["conversions"])), 2e-9 * float(np.sum(report.macs))
    each, theirs = (joules / conversions * 1e6 for joules in (ours["ADC"], 19.4 / 1.22))
    return (
        f"VGG8 on 32 x 32 x 3, {gop:.3f} GOP: 128 x 128 arrays, one bit a cell (100 k and 1.7 M ohm), 8-bit weights, "
        "8-bit inputs bit by bit, 5-bit converters, 22 nm; uJ an image.\n\n"
        f"{table(['component', 'ours', 'NeuroSim V1.4'], rows)}\n"
        f"ADC, {ours['ADC'] / 19.4:.2f} times: {conversions / 1e6:.0f} million conversions of {each:.3f} pJ, two "
        "thirds of it for the column's current, by NeuroSim's own SAR formula. NeuroSim used a flash converter there: "
        f"its 19.4 uJ, less the calibration of 1.22, are {theirs:.3f} pJ a conversion.\n\n"
        f"Accumulation, {ours['accumulation'] / 3.8:.2f} times: ours adds the partial sums of row tiles, and input "
        "codes for the offsets, with 32-bit adders of 45 nm; what shifts and adds slices and cycles has no constant. "
        "NeuroSim has adder trees and shift-adds as wide as they must be, at an activity of 0.15, and no offsets.\n\n"
        "Cells: a driven cell conducts for the read pulse of 10 ns, `V^2 G t`. NeuroSim counts an array's wires as "
        "capacitances, and the column's current in its converter alone, for as long as that converts. So the "
        "`neurosim` technologies have no `read_pulse_seconds` and price no cells.\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# What masks add to a chip


def masks_page() -> str:
    """Bits and bit-cell area of one resident task's masks on ResNet-20's chip, beside the area of its arrays."""
    chip = program(xbm.load_backbone("cifar-resnet20"), xbm.spec_by_name("verified"), jax.random.key(0))
    tech = load_technology("isaac-32nm")
    found = xbm.hardware.mask_memory(chip, tech)
    arrays = read_cost(chip, tech).total_area_m2
    ways = {
        "a column of a row tile: XBM": "column",
        "a source line: XBM by line": "line",
        "a kernel: KSM, were it applied without a write": "kernel",
        "a weight: Piggyback, likewise": "weight",
    }
    rows = [
        [name, f"{getattr(found, way):,}", f"{1e12 * found.m2[way]:,.0f}", f"{100 * found.m2[way] / arrays:.2f}"]
        for name, way in ways.items()
    ]
    return (
        f"Masks of one resident task on ResNet-20's chip of 64 x 64 cells, {tech.name}: six-transistor cells alone, "
        f"beside {1e6 * float(arrays):.3f} mm2 of arrays with their converters, drivers and registers.\n\n"
        f"{table(['a bit for', 'bits', 'um2', '% of the arrays'], rows)}\n"
        "Not counted, for want of a source: the gate of a line and its driver. A mask bit is read when a task is "
        "loaded, not in every read: it stands at its gate.\n"
    )


# ---------------------------------------------------------------------------------------------------------------------
# What a technology prices

BESIDE = {
    "head": ("half_mac_joules",),
    "leakage": ("leakage_watts_per_array",),
    "backward, digital": ("mac_joules",),
    "cell writes": ("write_joules",),
    "cell writes, V^2 G t": ("write_volts", "write_pulse_seconds"),
    "verify reads": ("verify_reads",),
    "task memory": ("sram_write_joules_per_bit",),
    "time: least of a read": ("read_seconds",),
    "time: a write": ("write_pulse_seconds",),
    "time: a whole array's write": ("array_write_seconds",),
    "wear": ("endurance_writes",),
    "area: cells": ("cell_m2",),
    "area: DAC": ("dac_m2",),
    "area: sample and hold": ("sample_hold_m2",),
    "area: shift and add": ("shift_add_m2",),
    "area: registers": ("input_register_m2", "output_register_m2"),
    "area: masks": ("sram_m2_per_bit",),
}
"""What is no component of a layer's reads, and the constants for it."""


def components_page() -> str:
    """Component x technology: the constants that price it, or none."""
    known = [load_technology(name) for name in technologies()]
    sets = {name: part.constants for name, part in COMPONENTS.items()} | {n: (c,) for n, c in BESIDE.items()}
    rows = [[name, _names(ways), *("yes" if _has(t, ways) else "-" for t in known)] for name, ways in sets.items()]
    adc = next(row for row in rows if row[0] == "ADC")
    adc[1:] = ["of the converter", *(t.converter.replace("_", " ") for t in known)]
    timed = ["time: a conversion", "of the converter", *(_timed(t) for t in known)]
    sized = ["area: ADC", "of the converter", *(_sized(t) for t in known)]
    models = [[f"`{name}`", ", ".join(f"`{c}`" for c in constants)] for name, constants in CONVERTERS.items()]
    return (
        "Which component a technology prices. What has no constant is not counted, and `not_counted` of a report says "
        "so.\n\n"
        f"{table(['component', 'constants', *technologies()], [*rows, timed, sized])}\n"
        "Constants that a converter's model computes with:\n\n"
        f"{table(['model', 'constants'], models)}"
    )


def _names(ways: tuple[tuple[str, ...], ...]) -> str:
    return " or ".join(", ".join(f"`{name}`" for name in names) for names in ways)


def _has(technology: Technology, ways: tuple[tuple[str, ...], ...]) -> bool:
    return any(all(name in technology for name in names) for names in ways)


def _timed(technology: Technology) -> str:
    names = ("adc_seconds", "adc_seconds_per_bit", "adc_samples_per_second")
    return next((f"`{name}`" for name in names if name in technology), "-")


def _sized(technology: Technology) -> str:
    return "survey" if technology.converter == "survey" else "`adc_m2`" if "adc_m2" in technology else "-"


def constants_page() -> str:
    """Constant x technology: what it counts, and its value."""
    known = [load_technology(name) for name in technologies()]
    used = [name for name in CONSTANTS if any(name in t for t in known)]
    rows = [[f"`{n}`", CONSTANTS[n].meaning, *(f"{t.get(n):.5g}" if n in t else "-" for t in known)] for n in used]
    other = ", ".join(f"`{name}`" for name in CONSTANTS if name not in used)
    return (
        "Constants in SI units, each the end of its name.\n\n"
        f"{table(['constant', 'what it counts', *technologies()], rows)}\n"
        f"A file of one's own may state these too: {other}.\n"
    )


def sources_page() -> str:
    """Every constant of every technology with its source."""
    parts = []
    for name in technologies():
        known = load_technology(name)
        rows = [[f"`{constant}`", f"{known.get(constant):.6g}", source] for constant, source in known.sources]
        lines = ["| constant | value | source |", "| --- | ---: | --- |", *(f"| {' | '.join(row)} |" for row in rows)]
        parts.append(f"## {name}\n\n{known.about}.\n\n" + "\n".join(lines) + "\n")
    return "Where each constant comes from, as the technology's file says.\n\n" + "\n".join(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Chips


class Dense(nnx.Module):
    """One layer on arrays, and a head."""

    def __init__(self, rows: int, columns: int, *, rngs: nnx.Rngs) -> None:
        self.layer = nnx.Linear(rows, columns, use_bias=False, rngs=rngs)
        self.head = nnx.Linear(columns, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(self.layer(x))


def dense_chip(spec: CrossbarSpec, rows: int, columns: int) -> Chip:
    """Gaussian weights of one dense layer on arrays."""
    network = network_from_module(
        lambda: Dense(rows, columns, rngs=nnx.Rngs(0)),
        name="dense",
        head="head",
        inputs=jax.ShapeDtypeStruct((rows,), np.float32),
    )
    return program(backbone(network, gaussian(network.shapes)), spec, jax.random.key(0))


def gaussian(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Normal numbers of every shape."""
    rng = np.random.default_rng(0)
    return {path: rng.standard_normal(tuple(shape), np.float32) for path, shape in shapes.items()}


def read_cost(chip: Chip, technology: Technology, activity: Activity | None = None) -> CostReport:
    """Of one example with every column on."""
    network = chip.network
    if network.inputs is None:
        inputs: Any = jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8)
    else:
        inputs = network.inputs.batch(1)
    return cost(chip, xbm.source_task(chip), technology, workload(chip, inputs, activity=activity))


def _two(ours: float, theirs: float) -> list[str]:
    return [f"{ours:.3g}", f"{theirs:.3g}", _off(ours, theirs)]


def _off(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %"


QUICK = {
    "cost_isaac": isaac_page,
    "cost_converters": converters_page,
    "cost_neurram": neurram_page,
    "cost_puma": puma_page,
    "cost_masks": masks_page,
    "cost_components": components_page,
    "cost_constants": constants_page,
    "cost_sources": sources_page,
}
LARGE = {"cost_vgg8": vgg8_page}
"""Tables, each by what makes it; the large ones take memory and time."""


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
