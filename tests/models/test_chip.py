"""A backbone onto arrays: keys, rules, what stays digital, and the measurements that come with weights."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.tiny import CONVERTED, CONVS, IDEAL, NOISY, NORMS, tiny_backbone, tiny_chip, tiny_images
from xbm_jax.crossbar import (
    Adc,
    Cell,
    ChannelOrder,
    CrossbarSpec,
    Gaussian,
    Ideal,
    MiloCurve,
    column_sums,
    nominal_weights,
    plan,
)
from xbm_jax.crossbar import program as program_kernel
from xbm_jax.crossbar.reading.sums import Converters
from xbm_jax.errors import ModelError, SpecError
from xbm_jax.hardware import task_bits
from xbm_jax.masks import methods
from xbm_jax.models import (
    Backbone,
    Calibration,
    Chip,
    calibrate,
    digital_weights,
    forward,
    initial_trained,
    program,
    redrawn,
    source_trained,
)
from xbm_jax.models.chip import calibration_key
from xbm_jax.tasks import inspect, predict, source_task

STEM_ONLY = {"blocks/*": None}


def leaves(tree: Any) -> dict[str, np.ndarray]:
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def assert_same_bits(one: Any, other: Any) -> None:
    ours, theirs = leaves(one), leaves(other)
    assert ours.keys() == theirs.keys() and ours
    for path, array in ours.items():
        assert array.dtype == theirs[path].dtype, path
        np.testing.assert_array_equal(array, theirs[path], err_msg=path)


def answer(chip: Chip, images: Any) -> jax.Array:
    return forward(chip, methods.head_only(), source_trained(chip), chip.stats, images)[0]


# ---------------------------------------------------------------------------------------------------------------------
# Where each array goes


def test_every_array_has_one_place() -> None:
    backbone = tiny_backbone()
    chip = program(backbone, IDEAL, jax.random.key(0))
    assert sorted(chip.tiles) == CONVS
    assert sorted(chip.norms) == sorted(chip.stats) == NORMS
    assert sorted(chip.digital) == ["blocks/0/conv/bias", "blocks/1/conv/bias"]
    placed = {f"{p}/kernel" for p in chip.tiles} | set(chip.digital) | {f"head/{k}" for k in chip.head}
    placed |= {f"{p}/{k}" for part in (chip.norms, chip.stats) for p, leaf in part.items() for k in leaf}
    assert placed == set(backbone.arrays)
    assert chip.num_features == 8


def test_kernels_are_held_to_half_a_weight_step() -> None:
    chip = program(tiny_backbone(), IDEAL, jax.random.key(0))
    for path, tiles in chip.tiles.items():
        kernel = tiny_backbone().arrays[f"{path}/kernel"]
        step = np.abs(np.asarray(kernel)).max((0, 1, 2)) / 127
        np.testing.assert_allclose(tiles.weight_scale, step, rtol=1e-6)
        assert (np.abs(nominal_weights(tiles) - kernel) <= 0.5001 * step).all()


# ---------------------------------------------------------------------------------------------------------------------
# Keys


def test_same_key_same_bits() -> None:
    first, again, other = (program(tiny_backbone(), NOISY, jax.random.key(k)) for k in (3, 3, 4))
    assert_same_bits(first, again)
    for path in CONVS:
        assert bool((first.tiles[path].conductance != other.tiles[path].conductance).any())
        np.testing.assert_array_equal(first.tiles[path].levels, other.tiles[path].levels)


def test_layers_draw_apart() -> None:
    """Equal kernels at two paths get different errors, and another layer's spec changes none of them."""
    backbone = tiny_backbone()
    kernel = backbone.arrays["blocks/0/conv/kernel"]
    equal = dataclasses.replace(backbone, arrays={**backbone.arrays, "blocks/1/conv/kernel": kernel})
    chip = program(equal, NOISY, jax.random.key(0))
    first, second = chip.tiles["blocks/0/conv"], chip.tiles["blocks/1/conv"]
    np.testing.assert_array_equal(first.levels, second.levels)
    assert bool((first.conductance != second.conductance).any())
    ruled = program(equal, NOISY, jax.random.key(0), rules={"stem": None})
    assert_same_bits(ruled.tiles["blocks/0/conv"], first)


def test_vmap_over_keys_is_a_loop() -> None:
    keys = jax.random.split(jax.random.key(7), 3)
    population = jax.jit(jax.vmap(lambda key: program(tiny_backbone(), NOISY, key, rules=STEM_ONLY)))
    many = population(keys).tiles["stem"]
    for i, key in enumerate(keys):
        one = program(tiny_backbone(), NOISY, key, rules=STEM_ONLY).tiles["stem"]
        for name in ("levels", "conductance", "effective", "weight_scale", "key_data"):
            np.testing.assert_array_equal(getattr(many, name)[i], getattr(one, name), err_msg=name)


# ---------------------------------------------------------------------------------------------------------------------
# Rules for layers


def test_rules_choose_specs_by_pattern() -> None:
    coarse, fine = IDEAL.replace(rows=8), IDEAL.replace(rows=32)
    chip = program(tiny_backbone(), IDEAL, jax.random.key(0), rules={"blocks/0/*": coarse, "blocks/*": fine})
    rows = {path: tiles.plan.spec.rows for path, tiles in chip.tiles.items()}
    assert rows == {"stem": 24, "blocks/0/conv": 8, "blocks/1/conv": 32}


def test_digital_layers_compute_in_float() -> None:
    """With every layer digital the chip is the float network; one digital layer is nearer to it than none."""
    images = jnp.asarray(tiny_images(8))
    exact = tiny_backbone().logits(images)
    digital = program(tiny_backbone(), IDEAL, jax.random.key(0), rules={"*": None})
    assert digital.tiles == {} and "stem/kernel" in digital.digital
    np.testing.assert_allclose(answer(digital, images), exact, atol=2e-5)
    coarse = IDEAL.replace(weight_bits=3, cell=dataclasses.replace(IDEAL.cell, bits=2))
    rules = {"*": coarse}
    every = calibrate(program(tiny_backbone(), IDEAL, jax.random.key(0), rules=rules), tiny_images(16))
    some = calibrate(program(tiny_backbone(), IDEAL, jax.random.key(0), rules={"blocks/*": None}), tiny_images(16))
    assert list(some.tiles) == ["stem"]
    assert "blocks/0/conv/kernel" in some.digital and "blocks/0/conv/bias" in some.digital
    far, near = (float(jnp.abs(answer(chip, images) - exact).mean()) for chip in (every, some))
    assert 0 < near < 0.2 * far


@pytest.mark.parametrize("pattern", ["head", "blocks/2/*", "Stem", "stem/kernel", "bn", ""])
def test_a_pattern_that_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ModelError, match="a pattern that matches one of: blocks/0/conv, blocks/1/conv, stem") as caught:
        program(tiny_backbone(), IDEAL, jax.random.key(0), rules={"stem": None, pattern: None})
    assert caught.value.value == pattern


# ---------------------------------------------------------------------------------------------------------------------
# Measurements that come with weights

PEAKS = {"stem": 2.0, "blocks/0/conv": 6.0, "blocks/1/conv": 5.0}
LIMITS = {"stem": (-4000.0, 6000.0), "blocks/0/conv": (-9100.0, 1000.0), "blocks/1/conv": (-2000.0, 2000.0)}


def measured(spec: CrossbarSpec = CONVERTED) -> Backbone:
    known = Calibration(PEAKS, frozenset({"stem"}), LIMITS, calibration_key(spec), "made up")
    return dataclasses.replace(tiny_backbone(), calibration=known)


def test_measurements_calibrate_the_spec_that_they_were_made_with() -> None:
    chip = program(measured(), CONVERTED, jax.random.key(0))
    assert chip.calibrated
    for path, tiles in chip.tiles.items():
        assert tiles.plan.signed_inputs == (path == "stem")
        assert tiles.input_scale is not None and tiles.adc is not None
        np.testing.assert_allclose(tiles.input_scale, PEAKS[path] / (127 if path == "stem" else 255), rtol=1e-6)
        low, high = LIMITS[path]
        assert tiles.adc.lsb.shape == (1, 1, 1, 1)
        np.testing.assert_allclose(tiles.adc.lsb, (high - low) / 255, rtol=1e-6)
        np.testing.assert_array_equal(tiles.adc.min_code, np.round(low / ((high - low) / 255)))
    assert answer(chip, tiny_images(2)).shape == (2, 4)


def test_resolution_and_devices_do_not_void_ranges() -> None:
    """Neither changes where the sums of an ideal chip lie."""
    spec = CONVERTED.replace(adc=Adc(6), device=Gaussian(0.01), cols=64)
    chip = program(measured(), spec, jax.random.key(0), rules=STEM_ONLY)
    assert chip.calibrated
    adc = chip.tiles["stem"].adc
    assert adc is not None
    np.testing.assert_allclose(adc.lsb, 10000 / 63, rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        CONVERTED.replace(rows=32),
        CONVERTED.replace(active_rows=8),
        CONVERTED.replace(weight_bits=7, cell=dataclasses.replace(CONVERTED.cell, bits=6)),
        CONVERTED.replace(cell=dataclasses.replace(CONVERTED.cell, bits=4)),
        CONVERTED.replace(input_bits=7),
        CONVERTED.replace(dac_bits=1),
        CONVERTED.replace(row_order="tap"),
        CONVERTED.replace(adc=Adc(per="tile")),
        CONVERTED.replace(adc=Adc(percentile=99.0)),
    ],
    ids=[
        "rows",
        "active rows",
        "weight bits",
        "cell bits",
        "input bits",
        "serial",
        "row order",
        "per tile",
        "percentile",
    ],
)
def test_ranges_of_another_spec_are_not_used(spec: CrossbarSpec) -> None:
    chip = program(measured(), spec, jax.random.key(0), rules=STEM_ONLY)
    assert not chip.calibrated
    top = 2 ** (spec.input_bits - 1) - 1
    assert chip.tiles["stem"].input_scale == pytest.approx(2.0 / top, rel=1e-6)  # input scales hold for any
    with pytest.raises(SpecError, match="calibrate the chip on images first"):
        answer(chip, tiny_images(2))


def test_ranges_measured_for_tiles_as_high_are_used() -> None:
    assert program(
        measured(), CONVERTED.replace(rows=48, active_rows=24), jax.random.key(0), rules=STEM_ONLY
    ).calibrated


OFFSET = CONVERTED.replace(encoding="offset", cell=Cell(8, on_off=100.0))
DIGITAL = CONVERTED.replace(subtract="digital", cell=Cell(7, on_off=100.0))
CURVED = CONVERTED.replace(curve=MiloCurve())


@pytest.mark.parametrize(
    ("known", "cell", "same"),
    [
        (OFFSET, Cell(8, on_off=10.0), False),
        (OFFSET, Cell(8, on_off=100.0, g_max_siemens=1e-5), True),
        (DIGITAL, Cell(7, on_off=10.0), False),
        (DIGITAL, Cell(7), False),
        (CONVERTED, Cell(7, on_off=10.0, g_max_siemens=1e-5), True),
        (CURVED, Cell(7, g_max_siemens=1e-5), False),
        (CURVED, Cell(7, on_off=10.0), False),
    ],
)
def test_what_level_zero_conducts_voids_ranges_where_no_pair_cancels_it(
    known: CrossbarSpec, cell: Cell, same: bool
) -> None:
    assert program(measured(known), known.replace(cell=cell), jax.random.key(0), rules=STEM_ONLY).calibrated is same


KERNEL = jnp.asarray(np.random.default_rng(0).normal(size=(12, 3)), jnp.float32)
INPUTS = jnp.asarray(np.random.default_rng(1).integers(-7, 8, (20, 12)), jnp.float32)
ORDER = ChannelOrder(np.random.default_rng(2).permutation(12))

FIELDS = {
    "dac_bits": st.sampled_from([None, 4]),
    "cols": st.sampled_from([16, 32]),
    "signs": st.sampled_from([("differential", "analog"), ("differential", "digital"), ("offset", "analog")]),
    "row_order": st.sampled_from(["channel", "tap", ORDER]),
    "device": st.sampled_from([Ideal(), Gaussian(0.05)]),
    "curve": st.sampled_from([None, MiloCurve()]),
    "cell_bits": st.sampled_from([None, 2]),
    "on_off": st.sampled_from([math.inf, 20.0]),
    "g_max_siemens": st.sampled_from([1e-4, 2e-5]),
    "adc": st.builds(Adc, bits=st.sampled_from([6, 8]), gain_mismatch=st.sampled_from([0.0, 0.1])),
}


@st.composite
def two_specs(draw: st.DrawFn) -> tuple[CrossbarSpec, CrossbarSpec]:
    """A spec, and one that differs from it in two fields at most, so that many keys are equal."""
    first = {name: draw(values) for name, values in FIELDS.items()}
    changed = draw(st.sets(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=2))
    second = first | {name: draw(FIELDS[name].filter(lambda v, old=first[name]: v != old)) for name in sorted(changed)}
    return spec_of(**first), spec_of(**second)


def spec_of(signs: Any, cell_bits: Any, on_off: float, g_max_siemens: float, **fields: Any) -> CrossbarSpec:
    cell, (encoding, subtract) = Cell(cell_bits, on_off, g_max_siemens), signs
    return CrossbarSpec(8, weight_bits=4, input_bits=4, encoding=encoding, subtract=subtract, cell=cell, **fields)


def sums_of(spec: CrossbarSpec) -> list[np.ndarray]:
    """All that the converters of ideal cells see of signed inputs."""
    spec = spec.replace(device=Ideal())
    tiles = program_kernel(KERNEL, plan(KERNEL, spec, signed_inputs=True), jax.random.key(0))
    found = column_sums(tiles.plan, INPUTS, tiles.effective, Converters(curvature=tiles.curvature))
    return [np.asarray(sums) for _, _, sums in found]


FEW = settings() if settings().max_examples > 100 else settings(max_examples=20)


@FEW
@given(two_specs())
@pytest.mark.slow
def test_specs_of_one_key_have_one_range(specs: tuple[CrossbarSpec, CrossbarSpec]) -> None:
    first, second = specs
    assume(calibration_key(first) == calibration_key(second))
    with jax.disable_jit():
        one, other = sums_of(first), sums_of(second)
    assert len(one) == len(other)
    for here, there in zip(one, other, strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5 * np.abs(here).max())


def test_serial_inputs_of_all_bits_at_once_are_the_same_spec() -> None:
    assert program(measured(), CONVERTED.replace(dac_bits=8), jax.random.key(0)).calibrated


def test_a_rule_may_leave_one_layer_uncalibrated() -> None:
    chip = program(measured(), CONVERTED, jax.random.key(0), rules={"stem": CONVERTED.replace(rows=8)})
    assert [path for path, tiles in chip.tiles.items() if tiles.adc is None] == ["stem"]
    assert not chip.calibrated


def test_without_measurements_a_chip_waits_for_images() -> None:
    for spec in (IDEAL, CONVERTED):
        chip = program(tiny_backbone(), spec, jax.random.key(0))
        assert not chip.calibrated
        with pytest.raises(SpecError, match="calibrate"):
            answer(chip, tiny_images(2))


def test_another_draw_of_the_same_chip_is_what_its_key_programs() -> None:
    """Same levels, scales and ranges; cells as ``program`` draws them from the key."""
    chip = tiny_chip(CONVERTED.replace(device=Gaussian(0.05)))
    other, wanted = redrawn(chip, jax.random.key(5)), tiny_chip(CONVERTED.replace(device=Gaussian(0.05)), 5)
    for path, tiles in other.tiles.items():
        np.testing.assert_array_equal(tiles.levels, chip.tiles[path].levels)
        np.testing.assert_array_equal(tiles.input_scale, chip.tiles[path].input_scale)
        np.testing.assert_allclose(tiles.conductance, wanted.tiles[path].conductance, rtol=2.0**-22)
        assert tiles.adc is not None and tiles.plan == chip.tiles[path].plan
        jax.tree.map(np.testing.assert_array_equal, tiles.adc, chip.tiles[path].adc)
        assert float(jnp.abs(tiles.conductance - chip.tiles[path].conductance).max()) > 0
    jax.tree.map(np.testing.assert_array_equal, other.norms, chip.norms)


# ---------------------------------------------------------------------------------------------------------------------
# Arguments that are nearly right, and a chip without arrays


@pytest.mark.parametrize("key", [0, None, jax.random.split(jax.random.key(0), 2), np.zeros(2), "0"], ids=str)
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(SpecError, match="one key of a generator") as caught:
        program(tiny_backbone(), IDEAL, key)
    assert caught.value.field == "key"


def test_raw_keys_are_keys() -> None:
    chips = [
        program(tiny_backbone(), NOISY, key, rules=STEM_ONLY) for key in (jax.random.key(3), jax.random.PRNGKey(3))
    ]
    typed, raw = (chip.tiles["stem"].conductance for chip in chips)
    np.testing.assert_array_equal(typed, raw)


@pytest.mark.parametrize(
    ("rules", "field"),
    [(["stem"], "rules"), ("stem", "rules"), ([], "rules"), ({0: None}, "rules"), ({"stem": "ideal"}, "rules['stem']")],
    ids=str,
)
def test_rules_that_are_no_mapping_are_refused(rules: Any, field: str) -> None:
    with pytest.raises(ModelError) as caught:
        program(tiny_backbone(), IDEAL, jax.random.key(0), rules=rules)
    assert caught.value.field == field


def test_a_chip_without_arrays_is_the_float_network() -> None:
    """The digital control of an experiment: calibrated, read, inspected and counted like any other."""
    chip, images = program(tiny_backbone(), CONVERTED, jax.random.key(0), rules={"*": None}), tiny_images(4)
    assert chip.calibrated and calibrate(chip, images).tiles == {}
    task = source_task(chip)
    np.testing.assert_allclose(predict(chip, task, images), tiny_backbone().logits(images), atol=2e-5)
    assert "1,368 of 1,368 weights stayed digital" in str(inspect(chip, images))
    assert digital_weights(chip) == {"stem/kernel": 216, "blocks/0/conv/kernel": 576, "blocks/1/conv/kernel": 576}
    bits = task_bits(chip, task)
    assert (bits.mask_bits, bits.backbone_weights, bits.mask_share_of_weights) == (0, 0, 0.0)
    trained = initial_trained(chip, methods.xbm(), 3, jax.random.key(0))
    assert trained["masks"] == {}
    again = chip.at(60.0)
    jax.tree.map(np.testing.assert_array_equal, again.digital, chip.digital)


@pytest.mark.parametrize(
    "age", [-60, math.nan, math.inf, "60", None, True, [1.0], np.float32(-1), np.array(math.nan), jnp.ones(2)], ids=repr
)
def test_an_age_that_no_chip_has_is_refused(age: Any) -> None:
    """Ideal devices too: whether an age is asked for by mistake does not depend on what it would do."""
    with pytest.raises(SpecError) as caught:
        tiny_chip().at(age)
    assert caught.value.field == "t_seconds"


@pytest.mark.parametrize("age", [0, 60.0, np.int64(60), np.float32(60), np.array(60), jnp.float32(60)], ids=repr)
def test_an_age_may_be_any_number(age: Any) -> None:
    chip = tiny_chip()
    jax.tree.map(np.testing.assert_array_equal, chip.at(age).tiles["stem"].conductance, chip.tiles["stem"].conductance)
