"""Designs of a chip: which there are, what one reaches and costs, and the front of them."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tiny import CONVERTED, random_arrays, tiny_backbone, tiny_images, tiny_network
from xbm_jax.crossbar import Cell, Gaussian, with_signed_inputs
from xbm_jax.errors import DataError, SpecError
from xbm_jax.hardware import (
    Design,
    Point,
    accuracy,
    built,
    cost,
    designs,
    load_technology,
    measure,
    measure_activity,
    pareto,
    workload,
)
from xbm_jax.models import Backbone, backbone, program
from xbm_jax.tasks import population_accuracy, source_task
from xbm_jax.tasks.population import design as measured_design

BASE = CONVERTED.replace(device=Gaussian(0.02), cell=Cell(bits=7, on_off=50.0))
SURVEY = load_technology("survey-22nm")
SEEN, IMAGES = tiny_images(32, seed=2), tiny_images(48, seed=3)
KEY = jax.random.key(4)


@cache
def balanced() -> Backbone:
    """The tiny network with a head that tells random images apart: its own finds all of one class."""
    arrays = random_arrays(tiny_network())
    arrays["head/bias"] = arrays["head/bias"] - np.mean(tiny_backbone().logits(SEEN), 0)
    return backbone(tiny_network(), arrays)


def place(accuracy: float, joules: float, technology: str = "a", **of: Any) -> Point:
    return Point(Design(**of), accuracy, joules, 1.0, 1.0, technology)


def beats(one: Point, other: Point) -> bool:
    """No worse in either, better in one: the definition, word for word."""
    no_worse = one.accuracy >= other.accuracy and one.joules <= other.joules
    return no_worse and (one.accuracy > other.accuracy or one.joules < other.joules)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), max_size=30))
def test_the_front_is_what_no_other_beats(values: list[tuple[int, int]]) -> None:
    """Few values, so that ties of one, of the other and of both come often."""
    points = [place(a / 5, float(j), rows=8 + i) for i, (a, j) in enumerate(values)]
    front = pareto(points)
    assert {p.design for p in front} == {p.design for p in points if not any(beats(q, p) for q in points)}
    assert all(any(beats(q, p) for q in front) for p in points if p not in front)
    assert [p.joules for p in front] == sorted(p.joules for p in front)
    assert {p.design for p in pareto(front)} == {p.design for p in front}


def test_equal_points_are_both_on_the_front_and_technologies_are_not_mixed() -> None:
    twins = [place(0.5, 1.0, rows=8), place(0.5, 1.0, rows=16)]
    assert pareto([*twins, place(0.5, 2.0), place(0.4, 1.0)]) == twins
    with pytest.raises(DataError, match=r"points = 'a, b': points of one technology"):
        pareto([place(0.5, 1.0), place(0.5, 1.0, "b")])


def test_a_design_changes_its_own_of_the_base_chip_alone() -> None:
    base = BASE.replace(adc=dataclasses.replace(BASE.adc, percentile=99.0))
    spec = Design(16, 2, 5, "tile", "max").spec(base)
    assert (spec.rows, spec.cell.bits, spec.adc.bits, spec.adc.per, spec.adc.range) == (16, 2, 5, "tile", "max")
    assert (spec.device, spec.cols, spec.cell.on_off, spec.adc.percentile) == (base.device, 16, 50.0, 99.0)
    assert Design().spec(CONVERTED.replace(rows=64)) == CONVERTED.replace(rows=64)


def test_designs_are_all_combinations_that_can_be_built() -> None:
    found = designs(rows=(16, 32), cell_bits=(1, 2, 7, 8), adc_bits=(4, 6), per=("layer", "tile"), base=BASE)
    # Seven 1-bit cells of pairs take 14 of 16 bit lines; a weight stores 7 bits, so no cell of 8.
    assert {d.cell_bits for d in found} == {1, 2, 7} and len(found) == len(set(found)) == 2 * 3 * 2 * 2
    assert {d.cell_bits for d in designs(cell_bits=(1, 2, 7), base=BASE.replace(cols=8))} == {2, 7}
    assert {d.rows for d in designs(rows=(16, 24, 32), base=BASE.replace(active_rows=8, rows=24))} == {16, 24, 32}
    assert {d.rows for d in designs(rows=(16, 24, 36), base=BASE.replace(active_rows=12))} == {24, 36}
    worst = designs(adc_bits=(4, 5), per=("layer", "tile", "column"), range=("max", "calibrated"))
    assert len(worst) == 2 + 6 and len({d.name for d in worst}) == 8
    shared = [(d.rows, d.cell_bits, d.per) for d in found]
    assert len([1 for a, b in itertools.pairwise(shared) if a != b]) == len(set(shared)) - 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 4}, r"CrossbarSpec\.rows = 4"),
        ({"cell_bits": 9}, r"Cell\.bits = 9"),
        ({"cell_bits": None}, r"Design\.cell_bits = None"),
        ({"adc_bits": 0}, r"Adc\.bits = 0"),
        ({"adc_bits": None}, r"Design\.adc_bits = None"),
        ({"per": "array"}, r"Adc\.per = 'array'"),
        ({"range": "granular"}, r"Design\.range = 'granular'"),
    ],
)
def test_what_no_chip_has_is_named(wrong: dict[str, Any], message: str) -> None:
    as_axes: dict[str, Any] = {name: (value,) for name, value in wrong.items()}
    with pytest.raises(SpecError, match=message):
        Design(**wrong)
    with pytest.raises(SpecError, match=message):
        designs(**as_axes)


def test_a_point_is_the_simulators_accuracy_and_the_reports_cost() -> None:
    """Against the population's accuracy, which programs, calibrates and reads on its own, and the cost of its chip."""
    design = Design(24, 7, 3, "tile")
    labels = np.argmax(balanced().logits(IMAGES), -1)
    point = measure(balanced(), BASE, design, SEEN, IMAGES, labels, load_technology("neurosim-22nm"), KEY)
    spec = design.spec(BASE)
    wanted = population_accuracy(balanced(), spec, KEY[None], IMAGES, labels, calibration_images=SEEN)
    assert point.accuracy == wanted.mean and 0.2 < point.accuracy < 1  # three bits lose some
    chip = measured_design(balanced(), spec, SEEN)
    load = workload(chip, IMAGES, activity=measure_activity(chip, IMAGES))
    report = cost(chip, source_task(chip), load_technology("neurosim-22nm"), load)
    assert point.joules == pytest.approx(float(report.inference_joules), rel=0.01, abs=0)  # cells drawn otherwise
    assert point.seconds == pytest.approx(float(report.latency_seconds), abs=0)
    assert point.m2 == pytest.approx(float(report.total_area_m2), abs=0)
    assert (point.technology, point.design) == ("neurosim-22nm", design)


def test_designs_that_share_measurements_have_the_ranges_of_their_own() -> None:
    shared = [Design(24, 7, bits, "tile") for bits in (4, 6)] + [Design(24, 7, 6, range="max")]
    for design, chip in built(tiny_backbone(), BASE, shared, SEEN, KEY):
        alone = measured_design(tiny_backbone(), design.spec(BASE), SEEN)
        written = program(tiny_backbone(), design.spec(BASE), KEY)
        for path, tiles in chip.tiles.items():
            wanted = alone.tiles[path]
            assert tiles.plan == wanted.plan and tiles.adc is not None
            np.testing.assert_array_equal(tiles.conductance, written.tiles[path].conductance)
            np.testing.assert_array_equal(tiles.input_scale, wanted.input_scale)
            if design.range == "max":  # follows from the cells as they were written
                wanted = with_signed_inputs(written.tiles[path], wanted.plan.signed_inputs)
            assert wanted.adc is not None
            np.testing.assert_allclose(tiles.adc.lsb, wanted.adc.lsb, rtol=2**-15)
            np.testing.assert_array_equal(tiles.adc.min_code, wanted.adc.min_code)


def test_images_and_labels_that_do_not_fit_are_refused() -> None:
    ((_, chip),) = built(tiny_backbone(), BASE, [Design(24, 7, 8)], SEEN, KEY)
    with pytest.raises(DataError, match=r"len\(labels\) = 3: 48"):
        accuracy(chip, IMAGES, np.zeros(3, int))
    with pytest.raises(DataError, match="images = '0 images'"):
        accuracy(chip, IMAGES[:0], np.zeros(0, int))
    with pytest.raises(SpecError, match="survey-22nm"):
        measure(tiny_backbone(), BASE, Design(24, 7, 3), SEEN, IMAGES, np.zeros(48, int), SURVEY, KEY)
