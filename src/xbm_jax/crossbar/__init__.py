"""Crossbar physics over arrays: a kernel is planned, programmed once, and read."""

from xbm_jax.crossbar.adc import AdcRange
from xbm_jax.crossbar.devices import Device, Faults, Gaussian, Ideal
from xbm_jax.crossbar.products import Conv
from xbm_jax.crossbar.program import Plan, Tiles, cells_written, nominal_weights, plan, program, reprogram
from xbm_jax.crossbar.read import clip_rate, column_sums, read
from xbm_jax.crossbar.spec import Adc, Cell, CrossbarSpec

__all__ = [
    "Adc",
    "AdcRange",
    "Cell",
    "Conv",
    "CrossbarSpec",
    "Device",
    "Faults",
    "Gaussian",
    "Ideal",
    "Plan",
    "Tiles",
    "cells_written",
    "clip_rate",
    "column_sums",
    "nominal_weights",
    "plan",
    "program",
    "read",
    "reprogram",
]
