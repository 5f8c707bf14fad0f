"""What a chip and a task cost: sums, what each number follows, and what `jit` and `vmap` make of it."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware.test_events import ONE, masked_task
from models.tiny import CONVERTED, tiny_chip, tiny_images
from xbm_jax.crossbar import Adc, Cell
from xbm_jax.either import added_by
from xbm_jax.errors import BankError, DataError, MethodError, SpecError
from xbm_jax.hardware import (
    CostReport,
    Training,
    Workload,
    cost,
    explain,
    load_technology,
    mask_memory,
    stack_technologies,
    swings,
    switch_cost,
    task_cells_written,
    technologies,
    workload,
)
from xbm_jax.hardware.constants.converters import conversion_joules
from xbm_jax.masks import Alphabet, Binary, Column, Identity, Shift, Soft, Ternary, methods
from xbm_jax.models import Chip, initial_trained
from xbm_jax.tasks import Task, compact, source_task

ISAAC = "isaac-32nm"
LEARNED = Training(images=100, epochs=3, batch_size=10)


@cache
def chip() -> Chip:
    return tiny_chip(CONVERTED)


@cache
def load(**options: Any) -> Workload:
    return workload(chip(), ONE, training=LEARNED, **options)


def rewritten_task(name: str, share: float = 0.3) -> Task:
    """A task of a method that rewrites cells, after it has changed some of them."""
    method = methods.by_name(name)
    trained = initial_trained(chip(), method, 4, jax.random.key(1))

    def moved(m: jax.Array) -> jax.Array:
        off = jax.random.uniform(jax.random.key(m.size), m.shape) < share
        return jnp.where(off, -m, m)

    return Task({**trained, "masks": jax.tree.map(moved, trained["masks"])}, chip().stats, method)


def of(task: Task, name: str = ISAAC, **options: Any) -> CostReport:
    return cost(chip(), task, load_technology(name), load(**options))


def numbers(report: CostReport) -> list[np.ndarray]:
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(report)]


@pytest.mark.parametrize("name", technologies())
def test_parts_add_up(name: str) -> None:
    """Components and layers to the example, explained terms to their layer, parts to the adaption."""
    task = masked_task(chip(), methods.xma())
    report = of(task, name)
    by_layer = sum(np.asarray(part) for part in report.energy_joules.values())
    beside = float(report.head_joules) + float(report.leakage_joules)
    np.testing.assert_allclose(np.sum(by_layer) + beside, report.inference_joules, rtol=1e-6)
    np.testing.assert_allclose(sum(map(float, report.by_component.values())), report.inference_joules, rtol=1e-6)
    np.testing.assert_allclose(
        sum(map(float, report.adaption_joules.values())), report.adaption_total_joules, rtol=1e-6
    )
    for index, layer in enumerate(report.layers):
        terms = explain(chip(), task, load_technology(name), load(), layer)
        np.testing.assert_allclose(sum(t.joules or 0.0 for t in terms), np.asarray(by_layer)[index], rtol=1e-6)
    assert float(report.inference_joules) > 0
    assert report.technology == name
    assert {t.component for t in terms if t.joules is None} >= set(report.not_counted) & {"DAC", "bus", "router"}


@pytest.mark.parametrize("name", technologies())
def test_compiled_it_is_the_same(name: str) -> None:
    task, tech = masked_task(chip(), methods.xbm()), load_technology(name)
    plain = cost(chip(), task, tech, load())
    compiled = jax.jit(lambda task, tech, load: cost(chip(), task, tech, load))(task, tech, load())
    for one, other in zip(numbers(plain), numbers(compiled), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5)


def test_vmap_over_tasks_and_over_technologies_is_one_by_one() -> None:
    tasks = [masked_task(chip(), methods.xbm(), seed=seed) for seed in (1, 2, 3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    many = jax.vmap(lambda task: cost(chip(), task, load_technology(ISAAC), load()))(stacked)
    one_by_one = [float(of(task).inference_joules) for task in tasks]
    np.testing.assert_allclose(jax.vmap(lambda r: r.inference_joules)(many), one_by_one, rtol=1e-5)
    assert len(set(one_by_one)) == 3
    dear = load_technology(ISAAC).with_constants(adc_joules=3e-12)
    both = stack_technologies([load_technology(ISAAC), dear])
    found = jax.vmap(lambda tech: cost(chip(), tasks[0], tech, load()).inference_joules)(both)
    wanted = [cost(chip(), tasks[0], tech, load()).inference_joules for tech in (load_technology(ISAAC), dear)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_energy_follows_the_columns_that_count() -> None:
    shares = (0.0, 0.3, 0.7, 1.1)
    tasks = [masked_task(chip(), methods.xbm(), share) for share in shares]
    for name in technologies():
        found = [float(of(task, name).inference_joules) for task in tasks]
        assert found == sorted(found, reverse=True)
        assert found[0] > found[-1]
    assert float(np.sum(of(tasks[-1]).energy_joules["ADC"])) == 0


def test_of_the_conversions_alone_isaac_is_counts_times_its_constant() -> None:
    """8 bits at 1.28 GS/s and 2 mW: 1.5625 pJ each."""
    report = of(masked_task(chip(), methods.xbm()))
    np.testing.assert_allclose(
        report.energy_joules["ADC"], np.asarray(report.events["conversions"]) * 1.5625e-12, rtol=1e-4
    )


def test_more_bits_rows_and_copies_cost_more() -> None:
    def joules(bits: int) -> float:
        made = tiny_chip(CONVERTED.replace(adc=Adc(bits=bits)))
        report = cost(made, source_task(made), load_technology("survey-22nm"), workload(made, ONE))
        return float(np.sum(report.energy_joules["ADC"]))

    found = [joules(bits) for bits in (4, 6, 8, 10)]
    assert found == sorted(found)
    one, two = (of(source_task(chip()), copies=copies) for copies in (1, 2))
    assert float(two.total_area_m2) == pytest.approx(2 * float(one.total_area_m2), rel=1e-6, abs=0)
    assert float(two.latency_seconds) == pytest.approx(float(one.latency_seconds) / 2, rel=0.03, abs=0)
    assert float(two.inference_joules) == pytest.approx(float(one.inference_joules), rel=1e-6, abs=0)
    three = of(source_task(chip()), batch=3)
    wanted = float(three.latency_seconds + 2 * three.interval_seconds)
    assert float(three.batch_seconds) == pytest.approx(wanted, rel=1e-6, abs=0)


def test_time_is_that_of_the_busiest_array() -> None:
    """ISAAC's stem: 36 reads of 27 rows in two groups of rows, each in an array of its own, 100 ns each."""
    report = of(source_task(chip()))
    seconds = dict(zip(report.layers, np.asarray(report.layer_seconds), strict=True))
    assert seconds["stem"] == pytest.approx(36 * 100e-9, rel=1e-6, abs=0)
    assert float(report.latency_seconds) == pytest.approx(sum(seconds.values()), rel=1e-6, abs=0)
    assert float(report.interval_seconds) == pytest.approx(max(seconds.values()), rel=1e-6, abs=0)


def test_row_tiles_of_one_array_are_read_one_after_another() -> None:
    """Kernels of 27 and 72 rows by 8 columns, 8 rows at once: 4, 9 and 9 reads; the busiest array has three of them."""
    made = tiny_chip(CONVERTED.replace(active_rows=8))
    report = cost(made, source_task(made), load_technology(ISAAC), workload(made, ONE))
    seconds = dict(zip(report.layers, np.asarray(report.layer_seconds), strict=True))
    wanted = {"stem": 36 * 3 * 100e-9, "blocks/0/conv": 9 * 3 * 100e-9, "blocks/1/conv": 4 * 3 * 100e-9}
    assert seconds == pytest.approx(wanted, rel=1e-6, abs=0)


def test_copies_share_the_reads_and_not_the_cycles_of_one() -> None:
    """Eight copies of a layer that is read four times in eight cycles: each read takes all of its cycles."""
    made = tiny_chip(CONVERTED.replace(dac_bits=1))
    report = cost(made, source_task(made), load_technology(ISAAC), workload(made, ONE, copies=8))
    seconds = dict(zip(report.layers, np.asarray(report.layer_seconds), strict=True))
    wanted = {"stem": 5 * 8 * 100e-9, "blocks/0/conv": 2 * 8 * 100e-9, "blocks/1/conv": 8 * 100e-9}
    assert seconds == pytest.approx(wanted, rel=1e-6, abs=0)


def test_offsets_take_each_input_code_once_a_read() -> None:
    """Offset encoding in eight cycles: an array adds up its input codes, not every bit of them by itself."""
    found = []
    for dac_bits in (None, 1):
        made = tiny_chip(CONVERTED.replace(encoding="offset", cell=Cell(bits=8), dac_bits=dac_bits))
        report = cost(made, source_task(made), load_technology(ISAAC), workload(made, ONE))
        found.append(dict(zip(report.layers, np.asarray(report.energy_joules["accumulation"]), strict=True)))
    # 36 reads: 27 codes in an array each of 24 and 3 rows, two partial sums a column, and the offset off each of them.
    assert found[0]["stem"] == pytest.approx(36 * (27 + 2 * 8 + 2 * 8) * 5.2083e-14, rel=1e-6, abs=0)
    assert found[1] == pytest.approx(found[0], rel=1e-6, abs=0)


def test_a_line_that_is_converted_apart_drives_its_converter_alone() -> None:
    """NeuroSim's converter at the mean of both lines, twice a column."""
    made = tiny_chip(CONVERTED.replace(subtract="digital"))
    tech, load = load_technology("neurosim-22nm"), workload(made, ONE)
    report, counted = cost(made, source_task(made), tech, load), load.inventory
    at = counted.layers.index("blocks/1/conv")
    lines = np.asarray(counted.siemens)[:, np.asarray(counted.layer_of_column) == at].mean(0)
    each = np.asarray(conversion_joules(tech, 8, lines, 8), np.float64)
    np.testing.assert_allclose(report.energy_joules["ADC"][at], 4 * 2 * each.sum(), rtol=1e-5)


def test_area_and_filling_by_hand() -> None:
    report = of(source_task(chip()))
    # Arrays of 24 x 16 lines hold 8 columns of two lines: 27 and 72 rows take 2, 3 and 3 of them.
    assert float(np.sum(report.array_cells)) == (2 + 3 + 3) * 24 * 16
    assert float(np.sum(report.cells)) == (27 + 72 + 72) * 8 * 2
    assert float(report.utilisation) == pytest.approx((27 + 72 + 72) / (8 * 24))
    assert float(np.sum(report.area_m2["ADC"])) == pytest.approx(8 * 1200e-12, rel=1e-6, abs=0)  # one for 128 bit lines


@pytest.mark.parametrize(
    ("alphabet", "priced"),
    [(Binary(), None), (Ternary(), None), (Shift(), "shifts"), (Soft(), "multipliers")],
    ids=lambda value: str(value).split("(")[0],
)
def test_a_gain_is_priced_by_what_it_takes(alphabet: Alphabet, priced: str | None) -> None:
    """A column's gain of 0, 1 or -1 is a gate, a power of two a shift, any other number a multiplication."""
    method = methods.masked("own", Column(), alphabet, Identity())
    report = of(Task(initial_trained(chip(), method, 4, jax.random.key(1)), chip().stats, method))
    found = {name: float(np.sum(report.energy_joules[name])) for name in ("shifts", "multipliers")}
    each = {None: 0.0, "shifts": 2.6524e-13, "multipliers": 5.6533e-13}[priced]
    wanted = {name: float(np.sum(report.events["column_sums"])) * each * (name == priced) for name in found}
    assert found == pytest.approx(wanted, rel=1e-6, abs=0)


# ---------------------------------------------------------------------------------------------------------------------
# Learning


def test_methods_that_write_no_cell_cost_no_write_and_never_wear() -> None:
    for method in (methods.norm_only(), methods.xbm(), methods.xbm_lines(), methods.xma(), methods.lora()):
        task = Task(initial_trained(chip(), method, 4, jax.random.key(1)), chip().stats, method)
        report = of(task)
        assert float(report.adaption_joules.get("cell writes", 0.0)) == 0, method.name
        assert np.isinf(report.writing["tasks_until_worn"])
        assert float(report.write_seconds) == 0


@pytest.mark.parametrize("name", ["piggyback", "ksm_binary", "finetune", "xma2"])
def test_rewriting_methods_pay_for_the_cells_that_differ(name: str) -> None:
    task = rewritten_task(name)
    report = of(task, "puma-32nm")
    cells = task_cells_written(chip(), task)
    assert float(report.writing["cells"]) == cells
    assert cells > 0 or name == "xma2"
    each = load_technology("puma-32nm")
    pulses = cells * float(each.get("write_pulses", 1))
    np.testing.assert_allclose(
        report.adaption_joules["cell writes"], pulses * float(each.get("write_joules")), rtol=1e-5
    )


def test_schedules_multiply_writes_and_wear() -> None:
    task, tech = rewritten_task("piggyback"), load_technology(ISAAC)

    def under(**options: Any) -> CostReport:
        return cost(chip(), task, tech, load().replace(training=dataclasses.replace(LEARNED, **options)))

    end, epoch, step = (under(schedule=schedule) for schedule in ("end", "epoch", "step"))
    cells = float(end.writing["cells"])
    assert [float(r.writing["cell_writes"]) for r in (end, epoch, step)] == [cells, 3 * cells, 30 * cells]
    assert [float(r.writing["cycles"]) for r in (end, epoch, step)] == [1, 3, 30]
    worn = [float(r.writing["tasks_until_worn"]) for r in (end, epoch, step)]
    assert worn == pytest.approx([worn[0], worn[0] / 3, worn[0] / 30])
    half = under(schedule="step", rewritten=0.5)
    assert float(half.writing["cell_writes"]) == 15 * cells


def test_passes_of_training_by_hand() -> None:
    """300 examples: the forward pass with every column on, dx of all layers but the first, gradients of the masks."""
    task = masked_task(chip(), methods.xbm())
    report = of(task)
    whole = of(source_task(chip()))
    forward = sum(float(np.sum(part)) for part in whole.energy_joules.values())
    np.testing.assert_allclose(report.adaption_joules["forward"], 300 * forward, rtol=1e-5)
    reads, kernels, tiles = (36, 9, 4), (27 * 8, 72 * 8, 72 * 8), (2, 3, 3)
    order = {"stem": 0, "blocks/0/conv": 1, "blocks/1/conv": 2}
    layers = [order[path] for path in report.layers]
    macs = sum(reads[i] * kernels[i] for i in layers if i != order["stem"])
    gains = sum(reads[i] * tiles[i] * 8 for i in layers)
    each = float(load_technology(ISAAC).get("mac_joules"))
    np.testing.assert_allclose(report.adaption_joules["backward, digital"], 300 * (macs + gains) * each, rtol=1e-5)


def test_backward_on_arrays_costs_a_read_and_what_stays_digital() -> None:
    task = masked_task(chip(), methods.xbm())
    arrays = load().replace(training=dataclasses.replace(LEARNED, backward="arrays"))
    report = cost(chip(), task, load_technology(ISAAC), arrays)
    assert report.adaption_joules["backward on arrays"] == report.adaption_joules["forward"]
    assert report.adaption_joules["backward, digital"] < of(task).adaption_joules["backward, digital"]
    head = Task(initial_trained(chip(), methods.head_only(), 4, jax.random.key(0)), {}, methods.head_only())
    assert float(cost(chip(), head, load_technology(ISAAC), arrays).adaption_joules["backward on arrays"]) == 0


# ---------------------------------------------------------------------------------------------------------------------
# Switching, masks' own hardware, assumptions


def test_switching_costs_the_bits_that_differ_or_the_cells() -> None:
    one, two = (compact(chip(), masked_task(chip(), methods.xbm(), seed=seed)) for seed in (1, 2))
    found = switch_cost(chip(), one, two, load_technology(ISAAC))
    codes = [np.concatenate([np.ravel(v) for v in task.trained["masks"].values()]) for task in (one, two)]
    assert found.differing_bits == int((codes[0] != codes[1]).sum()) > 0
    assert found.cells == 0
    assert switch_cost(chip(), one, one, load_technology(ISAAC)).differing_bits == 0
    three, four = rewritten_task("piggyback", 0.2), rewritten_task("piggyback", 0.5)
    back = switch_cost(chip(), three, four, load_technology("puma-32nm"))
    assert 0 < back.cells < task_cells_written(chip(), three) + task_cells_written(chip(), four)
    assert back.joules > found.joules
    assert switch_cost(chip(), three, three, load_technology("puma-32nm")).cells == 0
    with pytest.raises(MethodError, match=r"after\.method = 'piggyback': xbm"):
        switch_cost(chip(), one, three, load_technology(ISAAC))


def test_mask_memory_by_hand() -> None:
    bits = mask_memory(chip(), load_technology(ISAAC), tasks=3)
    assert (bits.column, bits.line) == (3 * 8 * (2 + 3 + 3), 3 * 16 * (2 + 3 + 3))
    assert (bits.kernel, bits.weight) == (3 * (24 + 64 + 64), 3 * (27 + 72 + 72) * 8)
    assert bits.m2["column"] == pytest.approx(bits.column * 0.171e-12, rel=1e-6, abs=0)


def test_swings_say_what_moves_the_answer() -> None:
    found = swings(chip(), masked_task(chip(), methods.xbm()), load_technology(ISAAC), load())
    sizes = [swing.size for swing in found]
    assert sizes == sorted(sizes, reverse=True)
    by_name = {swing.assumption.split(" ")[0]: swing for swing in found}
    adc = float(np.sum(of(masked_task(chip(), methods.xbm())).energy_joules["ADC"]))
    assert by_name["adc_joules"].size == pytest.approx(1.5 * adc, rel=1e-3, abs=0)  # twice, less half
    assert by_name["endurance_writes"].size == 0


def test_values_are_added_by_number_in_whatever_order() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0], np.float32)
    for ids in ([0, 0, 2, 2], [2, 0, 2, 0], [3, 3, 3, 3]):
        wanted = [sum(v for v, i in zip(values, ids, strict=True) if i == n) for n in range(4)]
        for kind in (np.asarray, jnp.asarray):
            np.testing.assert_array_equal(added_by(kind(values), np.array(ids, np.int32), 4), wanted)


def test_what_does_not_belong_together_is_refused() -> None:
    other = tiny_chip(CONVERTED, seed=5)
    with pytest.raises(BankError, match=r"task\.chip"):
        cost(chip(), source_task(other), load_technology(ISAAC), load())
    wrong = load().replace(inventory=dataclasses.replace(load().inventory, layers=("a", "b", "c")))
    with pytest.raises(DataError, match="workload = 'of another network'"):
        cost(chip(), source_task(chip()), load_technology(ISAAC), wrong)
    with pytest.raises(DataError, match="layer = 'stemm': one of "):
        explain(chip(), source_task(chip()), load_technology(ISAAC), load(), "stemm")
    made = tiny_chip(CONVERTED.replace(adc=Adc(bits=6)))
    with pytest.raises(SpecError, match="isaac-32nm"):
        cost(made, source_task(made), load_technology(ISAAC), workload(made, tiny_images(1)))
