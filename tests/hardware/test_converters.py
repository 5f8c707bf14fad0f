"""Converter models against the numbers that their sources print."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xbm_jax.errors import SpecError
from xbm_jax.hardware.constants.converters import conversion_joules, conversion_seconds, converter_m2
from xbm_jax.hardware.constants.technology import Technology, load_technology, stack, technologies

ALL = [load_technology(name) for name in technologies()]
SAR, SURVEY = load_technology("neurosim-22nm"), load_technology("survey-22nm")


def near(value: float, rel: float = 1e-6) -> object:
    """``value`` to a relative tolerance: joules are smaller than the absolute one that pytest adds."""
    return pytest.approx(value, rel=rel, abs=0)


def joules(chip: Technology, bits: int, siemens: float = 1e-3, pulses: int = 1) -> float:
    return float(conversion_joules(chip, bits, jnp.asarray(siemens), pulses))


def number(found: jax.Array | None) -> float:
    assert found is not None
    return float(found)


def all_bits(chip: Technology) -> range:
    return {"neurosim_sar": range(1, 17), "survey": range(4, 17), "pulses": range(3, 11)}.get(
        chip.converter, range(8, 9)
    )


# ---------------------------------------------------------------------------------------------------------------------
# Printed values


@pytest.mark.parametrize(("ohms", "picojoules", "digits"), [(1e4, 0.15, 2), (1e3, 0.79, 2), (1e2, 7.2, 1)])
def test_neurosim_at_22_nm_to_the_printed_digits(ohms, picojoules, digits):
    assert round(1e12 * joules(SAR, 8, 1 / ohms), digits) == picojoules


@pytest.mark.parametrize(
    ("name", "a", "b", "c", "slope", "volts"),
    [
        ("neurosim-22nm", 0.538, 4.3753, 0.072341, 2.303, 0.55),
        ("neurosim-32nm", 1.1294, 8.8998, 0.079449, 2.297, 0.51),
    ],
)
@pytest.mark.parametrize("kelvin", [300.0, 350.0])
def test_neurosim_as_its_source_has_it(name, a, b, c, slope, volts, kelvin):
    """``SarADC.cpp`` line by line, in Python's own floats."""
    chip = load_technology(name).with_constants(temperature_kelvin=kelvin)
    for bits, ohms in [(1, 1e5), (5, 3e3), (8, 1e2), (16, 1e7)]:
        power = (a * bits + b) * 1e-6 + c * np.exp(-slope * np.log10(ohms * 0.5 / volts))
        power *= 1 + 1.3e-3 * (kelvin - 300)
        assert joules(chip, bits, 1 / ohms) == near(power * (bits + 1) * 1e-9, rel=1e-4)


def test_neurosim_column_that_does_not_conduct():
    """What the column adds is gone, and the slope is a number."""
    assert joules(SAR, 8, 0.0) == near((0.538 * 8 + 4.3753) * 9e-15, rel=1e-4)
    for chip in (SAR, load_technology("neurosim-32nm")):
        assert np.isfinite(jax.grad(lambda g, chip=chip: conversion_joules(chip, 8, g, 1))(0.0))


@pytest.mark.parametrize(
    ("nanometres", "picojoules"),
    [
        (22, [0.457, 0.463, 0.527, 0.649, 0.847]),
        (32, [0.924, 0.936, 1.065, 1.312, 1.714]),
        (65, [3.50, 3.55, 4.04, 4.97, 6.49]),
    ],
)
@pytest.mark.parametrize("rate", [1e8, 1e9])
def test_survey_energies(nanometres, picojoules, rate):
    chip = SURVEY.with_constants(node_metres=nanometres * 1e-9, adc_samples_per_second=rate)
    found = [1e12 * joules(chip, bits) for bits in range(4, 9)]
    np.testing.assert_allclose(found, picojoules, rtol=2e-3)


def test_survey_area_and_rate():
    area = number(converter_m2(SURVEY, 8))
    assert area == near(2199e-12, rel=1e-3)
    fast = SURVEY.with_constants(adc_samples_per_second=1e10)
    assert joules(fast, 8) > 2 * joules(SURVEY, 8)
    assert number(converter_m2(fast, 8)) > area
    assert number(conversion_seconds(SURVEY, 8, 1)) == near(1e-8)


def test_survey_nodes_of_the_files():
    assert 1e12 * joules(load_technology("survey-32nm"), 8) == near(1.714, rel=2e-3)


def test_isaac_and_puma_state_one_converter():
    for name in ("isaac-32nm", "puma-32nm"):
        chip = load_technology(name)
        assert joules(chip, 8) == near(1.5625e-12)
        assert number(conversion_seconds(chip, 8, 1)) == near(1 / 1.28e9)
        assert number(converter_m2(chip, 8)) == near(1200e-12)


def test_times():
    assert number(conversion_seconds(SAR, 8, 1)) == near(9e-9)
    assert conversion_seconds(load_technology("neurram-130nm"), 8, 5) is None


def test_areas_that_nobody_states():
    assert converter_m2(SAR, 8) is None
    assert converter_m2(load_technology("neurram-130nm"), 8) is None


def test_the_same_eight_bits():
    """The spread of the models, and that each file computes with its own."""
    names = ("neurosim-22nm", "survey-22nm", "isaac-32nm")
    found = [1e12 * joules(load_technology(name), 8, 1e-12) for name in names]
    np.testing.assert_allclose(found, [0.078, 0.85, 1.56], rtol=0.01)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes, transformations, order


@pytest.mark.parametrize("chip", ALL, ids=lambda chip: chip.name)
def test_shape_is_the_columns_and_jit_changes_nothing(chip):
    columns = jnp.linspace(0, 1e-3, 6).reshape(2, 3)
    plain = conversion_joules(chip, 8, columns, 3)
    assert plain.shape == (2, 3) and plain.dtype == jnp.float32 and bool(jnp.all(plain > 0))
    jitted = jax.jit(conversion_joules, static_argnames=("bits", "pulses"))
    np.testing.assert_allclose(jitted(chip, 8, columns, 3), plain, rtol=1e-6)
    within = jax.jit(lambda columns: conversion_joules(chip, 8, columns, 3))  # the chip is no argument
    np.testing.assert_allclose(within(columns), plain, rtol=1e-6)


@pytest.mark.parametrize("names", [("neurosim-22nm", "neurosim-32nm"), ("survey-22nm", "survey-32nm")])
def test_vmap_over_a_stack_is_one_by_one(names):
    chips = [load_technology(name) for name in names]

    def all_three(chip: Technology) -> tuple:
        return (
            conversion_joules(chip, 5, jnp.asarray([1e-5, 1e-3]), 1),
            conversion_seconds(chip, 5, 1),
            converter_m2(chip, 5),
        )

    found = jax.vmap(all_three)(stack(chips))
    one_by_one = jax.tree.map(lambda *each: jnp.stack(each), *map(all_three, chips))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, one_by_one)


@pytest.mark.parametrize("chip", ALL, ids=lambda chip: chip.name)
def test_more_bits_never_cost_less(chip):
    """From 5 bits on for the survey, whose fit is flat between 4 and 5."""
    found = [joules(chip, bits) for bits in all_bits(chip)]
    assert np.all(np.diff(found) >= 0)
    if chip.converter in ("neurosim_sar", "survey"):
        assert np.all(np.diff(found) > 0)
        seconds = [number(conversion_seconds(chip, bits, 1)) for bits in all_bits(chip)]
        assert np.all(np.diff(seconds) >= 0)


@given(low=st.floats(1e-9, 1.0), factor=st.floats(1.01, 1e3))
def test_a_column_that_conducts_more_costs_more(low, factor):
    assert joules(SAR, 8, low * factor) >= joules(SAR, 8, low)


def test_pulses_cost_each_the_same():
    chip = load_technology("neurram-130nm")
    found = [joules(chip, 8, pulses=pulses) for pulses in (1, 2, 3)]
    assert found[0] == near(12.4 * 512e-15, rel=1e-4)
    np.testing.assert_allclose(np.diff(found), (75.9 - 12.4) / 6 * 512e-15, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------------
# Where a model has no value


@pytest.mark.parametrize(
    ("name", "bits", "allowed"),
    [
        ("isaac-32nm", 7, "8"),
        ("isaac-32nm", 0, "an integer from 1 to 16"),
        ("puma-32nm", 9, "8"),
        ("survey-22nm", 3, "an integer from 4 to 16"),
        ("survey-32nm", 17, "an integer from 4 to 16"),
        ("neurosim-22nm", 0, "an integer from 1 to 16"),
        ("neurosim-22nm", 17, "an integer from 1 to 16"),
        ("neurosim-22nm", 8.0, "an integer from 1 to 16"),
        ("neurram-130nm", 2, "an integer from 3 to 10"),
        ("neurram-130nm", 11, "an integer from 3 to 10"),
    ],
)
def test_bits_without_a_value(name, bits, allowed):
    chip = load_technology(name)
    calls = [
        lambda: conversion_joules(chip, bits, jnp.ones(2), 1),
        lambda: conversion_seconds(chip, bits, 1),
        lambda: converter_m2(chip, bits),
    ]
    for call in calls:
        with pytest.raises(SpecError, match=f"bits of a conversion on '{name}' = {bits}: {allowed}"):
            call()


def test_traced_technology_at_other_bits_is_no_number():
    """No error can know traced bits; a wrong number is not given either."""
    found = jax.jit(lambda chip: (conversion_joules(chip, 7, jnp.ones(2), 1), converter_m2(chip, 7)))(ALL[0])
    assert all(bool(jnp.all(jnp.isnan(part))) for part in found)


@pytest.mark.parametrize("pulses", [0, -1, 1.5, True])
def test_pulses_that_no_read_has(pulses):
    for chip in ALL:
        with pytest.raises(SpecError, match="pulses"):
            conversion_joules(chip, 8, jnp.ones(1), pulses)


def test_a_technology_made_by_hand_that_lacks_a_number():
    chip = Technology({}, "mine", "survey", "row", ())
    with pytest.raises(SpecError, match=r"mine\.node_metres = None"):
        conversion_joules(chip, 8, jnp.ones(1), 1)
    with pytest.raises(SpecError, match=r"mine\.converter = 'flash'"):
        conversion_joules(chip.replace(converter="flash"), 8, jnp.ones(1), 1)
