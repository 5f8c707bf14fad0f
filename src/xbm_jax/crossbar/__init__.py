"""Crossbar physics over arrays: a kernel is planned, programmed once, and read."""

from xbm_jax.crossbar.devices.curves import Curve
from xbm_jax.crossbar.devices.laws import Device, Faults, Gaussian, Ideal
from xbm_jax.crossbar.devices.milo import MiloCurve
from xbm_jax.crossbar.devices.published import PUBLISHED, PcmHermes, PcmJoshi, ReramCmo, ReramMilo, ReramWan, Sonos
from xbm_jax.crossbar.devices.tables import FunctionDevice, TableDevice, from_csv
from xbm_jax.crossbar.named import SPECS, spec_by_name
from xbm_jax.crossbar.primitives.adc import AdcRange, Mismatch
from xbm_jax.crossbar.primitives.products import Conv
from xbm_jax.crossbar.primitives.wires import fold_wires
from xbm_jax.crossbar.reading.fused import fused_reads
from xbm_jax.crossbar.reading.observe import clip_rate
from xbm_jax.crossbar.reading.reads import gained_kernel, linear_kernel, read
from xbm_jax.crossbar.reading.sums import column_sums
from xbm_jax.crossbar.writing.by_line import with_lines
from xbm_jax.crossbar.writing.lines import Lines
from xbm_jax.crossbar.writing.orders import ChannelOrder
from xbm_jax.crossbar.writing.plans import Plan, plan
from xbm_jax.crossbar.writing.spec import Adc, Cell, CrossbarSpec, Wires
from xbm_jax.crossbar.writing.tiles import (
    Tiles,
    at_time,
    cells_written,
    nominal_weights,
    program,
    reprogram,
    with_signed_inputs,
    worn_cells,
)

__all__ = [
    "PUBLISHED",
    "SPECS",
    "Adc",
    "AdcRange",
    "Cell",
    "ChannelOrder",
    "Conv",
    "CrossbarSpec",
    "Curve",
    "Device",
    "Faults",
    "FunctionDevice",
    "Gaussian",
    "Ideal",
    "Lines",
    "MiloCurve",
    "Mismatch",
    "PcmHermes",
    "PcmJoshi",
    "Plan",
    "ReramCmo",
    "ReramMilo",
    "ReramWan",
    "Sonos",
    "TableDevice",
    "Tiles",
    "Wires",
    "at_time",
    "cells_written",
    "clip_rate",
    "column_sums",
    "fold_wires",
    "from_csv",
    "fused_reads",
    "gained_kernel",
    "linear_kernel",
    "nominal_weights",
    "plan",
    "program",
    "read",
    "reprogram",
    "spec_by_name",
    "with_lines",
    "with_signed_inputs",
    "worn_cells",
]
