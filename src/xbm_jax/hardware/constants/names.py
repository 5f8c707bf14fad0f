"""The numbers that a technology may state: what each counts, in which unit, and what it can be.

The unit is the end of the name (``dac_joules``, ``cell_m2``), all SI. A range holds every device that is imaginable and
no slip of a unit: picojoules given as joules, square micrometres given as square metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["CONSTANTS", "CONVERTERS", "WRITE_UNITS", "Constant", "is_whole", "near"]


class Constant(NamedTuple):
    """What a number counts, and the range that it lies in, both ends included."""

    meaning: str
    low: float
    high: float


# The end of a name and its range; of the ends that fit, the first counts.
_RANGES: Mapping[str, tuple[float, float]] = {
    "adc_bits": (1, 16),
    "dac_bits": (1, 16),
    "columns_per_adc": (1, 1024),
    "write_pulses": (1, 1e6),
    "verify_reads": (0, 1e6),
    "endurance_writes": (1, 1e18),
    "samples_per_second": (1e3, 1e12),
    "ohms_slope": (1.0, 5.0),
    "watts_ohms": (0, 1e3),
    "metres": (1e-9, 1e-6),
    "kelvin": (200, 500),
    "volts": (0.05, 10),
    "seconds_per_bit": (0, 1),
    "joules_per_bit": (0, 1e-3),
    "joules_per_pulse": (0, 1e-3),
    "joules_first_pulse": (0, 1e-3),
    "m2_per_bit": (0, 1e-2),
    "watts_per_bit": (0, 1),
    "watts_per_array": (0, 1),
    "joules": (0, 1e-3),
    "seconds": (0, 1),
    "watts": (0, 1),
    "m2": (0, 1e-2),
}

_WHOLE = ("adc_bits", "columns_per_adc", "dac_bits")

_MEANINGS: Mapping[str, str] = {
    # Converter
    "adc_bits": "bits of the one converter that the source describes",
    "adc_joules": "a conversion",
    "adc_seconds": "a conversion",
    "adc_m2": "a converter",
    "adc_watts_per_bit": "a SAR converter's power: what each bit adds",
    "adc_watts": "a SAR converter's power: what no bit and no column changes",
    "adc_watts_ohms": "a SAR converter's power: what the column adds, times its resistance in ohm to the slope / ln 10",
    "adc_ohms_slope": "a SAR converter's power falls as exp(-slope log10(resistance))",
    "adc_seconds_per_bit": "a step of a SAR converter; a conversion takes bits + 1",
    "node_metres": "the technology node",
    "adc_samples_per_second": "rate that a converter is designed for",
    "adc_joules_first_pulse": "a conversion of a neuron that integrates one input pulse",
    "adc_joules_per_pulse": "what each further input pulse adds to a conversion",
    # Array
    "cell_read_joules": "a crossing of a driven word line and a used bit line, a read",
    "read_volts": "a word line that is driven to read",
    "read_pulse_seconds": "how long a read drives the cells: energy is volts squared times conductance times it",
    "read_seconds": "least time of one read of an array",
    "word_line_joules": "a driven word line and read, its first input pulse included",
    "word_line_joules_per_pulse": "what each further input pulse of a read adds to a driven word line",
    "dac_bits": "bits of the word-line drivers that dac_joules is of",
    "dac_joules": "a driven word line and read",
    "dac_m2": "a word line's driver",
    "cell_m2": "a cell",
    "columns_per_adc": "bit lines that share a converter",
    # Periphery
    "sample_hold_joules": "a converted column and read",
    "sample_hold_m2": "a column",
    "shift_add_joules": "a conversion",
    "shift_add_m2": "an array's share",
    "input_register_joules_per_bit": "a bit that a register hands to a word line",
    "output_register_joules_per_bit": "a bit of a finished column sum",
    "input_register_m2": "an array's share",
    "output_register_m2": "an array's share",
    "accumulate_joules": "an addition of a row tile's partial sum",
    "shift_joules": "a gain of a column sum that is a power of two",
    "multiply_joules": "a gain of a column sum that is any number",
    "buffer_joules_per_bit": "a bit written to or read from the tile's memory",
    "bus_joules_per_bit": "a bit over the tile's bus",
    "router_joules_per_bit": "a bit through the router between tiles",
    "activation_joules": "an output value's activation function",
    "mac_joules": "a digital multiply-add of training, in single precision",
    "half_mac_joules": "a digital multiply-add of norms and heads, in half precision",
    "add_joules": "a digital addition",
    "leakage_watts_per_array": "what an array and its registers leak",
    # Writing
    "write_joules": "a cell and write pulse",
    "write_volts": "a cell that is written",
    "write_pulse_seconds": "a write pulse",
    "write_pulses": "write pulses a cell",
    "verify_reads": "reads a cell that check what was written",
    "array_write_seconds": "a whole array",
    "endurance_writes": "writes that a cell survives",
    "sram_write_joules_per_bit": "a bit written to a small static memory",
    "sram_read_joules_per_bit": "a bit read from a small static memory",
    "sram_m2_per_bit": "a bit cell of a static memory",
    "temperature_kelvin": "the chip",
}


def _range(name: str) -> tuple[float, float]:
    return next(bounds for end, bounds in _RANGES.items() if name.endswith(end))


CONSTANTS: Mapping[str, Constant] = MappingProxyType(
    {name: Constant(meaning, *_range(name)) for name, meaning in _MEANINGS.items()}
)
"""All constants by name. None is required but those that the technology's converter computes with."""

CONVERTERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "constant": ("adc_bits", "adc_joules"),
        "neurosim_sar": (
            *("adc_watts_per_bit", "adc_watts", "adc_watts_ohms", "adc_ohms_slope", "adc_seconds_per_bit"),
            *("read_volts", "temperature_kelvin"),
        ),
        "survey": ("node_metres", "adc_samples_per_second"),
        "pulses": ("adc_joules_first_pulse", "adc_joules_per_pulse"),
    }
)
"""Converter models, each with the constants that it computes with."""

WRITE_UNITS = ("cell", "row", "array")
"""What can be written at once."""


def is_whole(name: str) -> bool:
    """Whether the constant counts bits or columns, so that only an integer makes sense."""
    return name in _WHOLE


def near(name: str) -> list[str]:
    """Known names that ``name`` may have meant: those that begin with the same words, then those spelt alike."""
    words = name.lower().split("_")
    for count in range(len(words), 0, -1):
        found = [known for known in CONSTANTS if known.split("_")[:count] == words[:count]]
        if found:
            return found
    return get_close_matches(name, CONSTANTS, n=3, cutoff=0.5)
