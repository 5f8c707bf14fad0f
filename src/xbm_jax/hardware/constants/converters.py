"""What an analog-to-digital conversion costs: energy, time and area by the technology's model.

Pure functions of the technology's constants, for ``jit``, ``vmap`` and gradients. The same "8-bit conversion" costs
0.08 to 36 pJ in the literature, so that a cost is never said without its model.

======================  ===============================================================================================
``"constant"``          one converter, as published; only at its own bits (under ``jit``: NaN at others)
``"neurosim_sar"``      P = a n + b + c exp(-s log10(R 0.5 V / V_read)), E = P (n + 1) t_bit, times
                        1 + 1.3e-3 (T - 300 K); R of the column (NeuroSim V1.4, ``SarADC.cpp``). The ADC part alone.
``"survey"``            fit to Murmann's ADC survey (accelergy ADC plug-in): quantile of published converters by bits,
                        node and rate
``"pulses"``            a neuron that integrates input pulses: E = E_1 + E_p (pulses - 1) (fitted to NeuRRAM, Wan 2022)
======================  ===============================================================================================
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax.core import Tracer

from xbm_jax.crossbar.validate import check_int
from xbm_jax.either import xp_of
from xbm_jax.errors import SpecError
from xbm_jax.hardware.constants.technology import Technology

__all__ = ["conversion_joules", "conversion_seconds", "converter_m2"]

_BITS = {"neurosim_sar": (1, 16), "survey": (4, 16), "pulses": (3, 10)}
"""Bits that a model has values for. Survey: fitted from 4 bits; NeuRRAM: measured at 3 to 10 output bits."""

# NeuroSim V1.4, SarADC.cpp: the fit was made at 0.5 V and 300 K.
_SAR_VOLTS, _SAR_KELVIN, _SAR_PER_KELVIN = 0.5, 300.0, 1.3e-3
_LEAST_SIEMENS = 1e-15
"""A column that conducts less draws no current that a converter could see, and the power's slope is finite."""

# Murmann's ADC survey as fitted by the accelergy ADC plug-in (frequency in Hz, node in nm, energy in pJ, area in um2).
_FOM_AT_RATE, _FOM_PER_LOG_RATE = 213.78, -2.8719
_FOM_AT_BITS, _FOM_PER_BIT = 128.31, 3.2205
_ENERGY, _ENERGY_PER_LOG_NODE, _ENERGY_PER_LOG_BITS, _ENERGY_QUANTILE = 26.0496, 1.88004, -2.82913, -1.47020
_AREA, _AREA_PER_LOG_NODE, _AREA_PER_LOG_RATE, _AREA_PER_LOG_ENERGY = 1.3462, 0.99328, 0.18072, 0.29912


def conversion_joules(technology: Technology, bits: int, column_siemens: Any, pulses: int) -> Any:
    """Energy of one conversion (J), in the shape of ``column_siemens``.

    Args:
        technology: whose converter.
        bits: of the converter, static.
        column_siemens: summed conductance that drives the converter (S); only ``"neurosim_sar"`` depends on it.
        pulses: what one read streams, static: max(1, input code bits - 1) of signed inputs, else the input bits; only
            ``"pulses"`` depends on it.

    Raises:
        SpecError: the model has no value at these bits.
    """
    _check_bits(technology, bits)
    further = check_int("pulses", pulses, 1, 1 << 16) - 1
    match technology.converter:
        case "constant":
            joules = _at_own_bits(technology, bits, _needed(technology, "adc_joules"))
        case "neurosim_sar":
            joules = _sar_joules(technology, bits, column_siemens)
        case "survey":
            joules = _survey_picojoules(technology, bits) * 1e-12
        case _:
            first = _needed(technology, "adc_joules_first_pulse")
            joules = first + _needed(technology, "adc_joules_per_pulse") * further
    xp = xp_of(joules, column_siemens)
    return xp.broadcast_to(xp.asarray(joules), np.shape(column_siemens))


def conversion_seconds(technology: Technology, bits: int, pulses: int) -> Any | None:
    """Time of one conversion (s), a scalar; ``None`` where the technology states none.

    Raises:
        SpecError: the model has no value at these bits.
    """
    _check_bits(technology, bits)
    check_int("pulses", pulses, 1, 1 << 16)
    match technology.converter:
        case "neurosim_sar":
            return _needed(technology, "adc_seconds_per_bit") * (bits + 1)
        case "survey":
            return 1.0 / _needed(technology, "adc_samples_per_second")
        case _:
            return _at_own_bits(technology, bits, technology.get("adc_seconds"))


def converter_m2(technology: Technology, bits: int) -> Any | None:
    """Area of one converter (m2), a scalar; ``None`` where the technology states none.

    Raises:
        SpecError: the model has no value at these bits.
    """
    _check_bits(technology, bits)
    if technology.converter == "survey":
        return _survey_m2(technology, bits)
    return _at_own_bits(technology, bits, technology.get("adc_m2"))


def _sar_joules(technology: Technology, bits: int, column_siemens: Any) -> Any:
    """E = (a n + b + c (G V_read / 0.5 V)^(s / ln 10)) (1 + 1.3e-3 (T - 300 K)) (n + 1) t_bit."""
    of = {name: _needed(technology, name) for name in ("adc_watts_per_bit", "adc_watts", "adc_watts_ohms")}
    volts, slope = _needed(technology, "read_volts"), _needed(technology, "adc_ohms_slope")
    xp = xp_of(column_siemens, volts, slope)
    siemens = xp.maximum(column_siemens, _LEAST_SIEMENS) * volts / _SAR_VOLTS
    column = of["adc_watts_ohms"] * xp.exp(slope * xp.log(siemens) / math.log(10.0))
    watts = of["adc_watts_per_bit"] * bits + of["adc_watts"] + column
    warm = 1.0 + _SAR_PER_KELVIN * (_needed(technology, "temperature_kelvin") - _SAR_KELVIN)
    return watts * warm * (bits + 1) * _needed(technology, "adc_seconds_per_bit")


def _survey_picojoules(technology: Technology, bits: int) -> Any:
    """E = 10^((SNDR - FOM) / 10) / 2 x exp(...), with SNDR = 6.0206 n + 1.761 dB and FOM the lesser of two bounds.

    What bits alone decide is summed in Python's floats: the terms are large and of both signs.
    """
    neper = math.log(10.0) / 10  # of a decibel
    merit = _FOM_AT_BITS + _FOM_PER_BIT * bits
    of_bits = _ENERGY + _ENERGY_PER_LOG_BITS * math.log(bits) + _ENERGY_QUANTILE
    at_one_nanometre = 0.5 * math.exp(neper * (6.0206 * bits + 1.761 - merit) + of_bits)
    log_node, log_rate = _survey_logs(technology)
    xp = xp_of(log_node, log_rate)
    short_of_merit = xp.maximum(merit - _FOM_AT_RATE - _FOM_PER_LOG_RATE * log_rate, 0.0)
    return at_one_nanometre * xp.exp(_ENERGY_PER_LOG_NODE * log_node + neper * short_of_merit)


def _survey_m2(technology: Technology, bits: int) -> Any:
    log_node, log_rate = _survey_logs(technology)
    picojoules = _survey_picojoules(technology, bits)
    log_energy = xp_of(picojoules).log(picojoules)
    fitted = _AREA + _AREA_PER_LOG_NODE * log_node + _AREA_PER_LOG_RATE * log_rate + _AREA_PER_LOG_ENERGY * log_energy
    return xp_of(fitted).exp(fitted) * 1e-12


def _survey_logs(technology: Technology) -> tuple[Any, Any]:
    """Logarithms of the node in nm and of the rate in Hz."""
    nanometres, rate = (_needed(technology, name) for name in ("node_metres", "adc_samples_per_second"))
    nanometres = nanometres * 1e9
    return xp_of(nanometres).log(nanometres), xp_of(rate).log(rate)


def _at_own_bits(technology: Technology, bits: int, value: Any) -> Any | None:
    """``value``, but NaN where the bits of a traced technology, which no error can name, are others."""
    if value is None:
        return None
    own = technology.get("adc_bits") if technology.converter == "constant" else bits
    xp = xp_of(own, value)
    return xp.where(xp.asarray(own) == bits, value, np.nan)


def _needed(technology: Technology, name: str) -> Any:
    value = technology.get(name)
    if value is None:
        allowed = f"a number: converter {technology.converter!r} computes with it"
        raise SpecError(f"{technology.name}.{name}", None, allowed)
    return value


def _check_bits(technology: Technology, bits: int) -> None:
    """Raise unless the model has a value at ``bits``."""
    field = f"bits of a conversion on {technology.name!r}"
    if technology.converter in _BITS:
        check_int(field, bits, *_BITS[technology.converter])
        return
    if technology.converter != "constant":
        raise SpecError(f"{technology.name}.converter", technology.converter, "a converter model of hardware.constants")
    check_int(field, bits, 1, 16)
    own = _needed(technology, "adc_bits")
    if not isinstance(own, Tracer) and not bool(np.all(np.asarray(own) == bits)):
        raise SpecError(field, bits, f"{own}: the source has this one converter")
