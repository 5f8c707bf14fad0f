"""Counts of a read, against loops over pixels, passes, tiles, slices and columns."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from crossbar.literal import Literal
from models.tiny import CONVERTED, CONVS, tiny_backbone, tiny_chip, tiny_images
from xbm_jax.crossbar import Adc, Cell, CrossbarSpec
from xbm_jax.errors import DataError, SpecError
from xbm_jax.hardware import Training, cost, inventory, load_technology, measure_activity, workload
from xbm_jax.hardware.events import count_events, lines_on
from xbm_jax.masks import methods
from xbm_jax.models import Chip, initial_trained, program, reads_per_example
from xbm_jax.tasks import Task, source_task

ONE = jax.ShapeDtypeStruct((1, 12, 12, 3), np.uint8)
SPECS = {
    "plain": CONVERTED,
    "slices and cycles": CONVERTED.replace(cell=Cell(bits=2), dac_bits=3),
    "active rows": CONVERTED.replace(active_rows=8),
    "digital pairs": CONVERTED.replace(subtract="digital"),
    "offset": CONVERTED.replace(encoding="offset", cell=Cell(bits=8)),
}


def masked_task(chip: Chip, method: Any, share: float = 0.4, seed: int = 3) -> Task:
    """A task with about that share of its column masks off, and in each layer's first tile all of them."""
    trained = initial_trained(chip, method, 4, jax.random.key(1))

    def off(path: str, m: jax.Array) -> jax.Array:
        drawn = jax.random.uniform(jax.random.fold_in(jax.random.key(seed), len(path)), m.shape) < share
        return m - 2.0 * drawn.at[0].set(True)

    masks = {path: off(path, m) for path, m in trained["masks"].items()}
    return Task({**trained, "masks": masks}, chip.stats, method)


def gains_of(chip: Chip, task: Task) -> dict[str, np.ndarray]:
    rule = task.method.rule
    assert rule is not None
    found = {path: rule.apply(tiles, task.trained["masks"][path])[1] for path, tiles in chip.tiles.items()}
    return {path: np.asarray(gain) for path, gain in found.items()}


class Counting:
    """Stands where a literal read has its converter, and counts the conversions that a gain of zero does not spare."""

    def __init__(self, gain: np.ndarray) -> None:
        self.gain, self.count = gain, 0

    def convert(self, sums: np.ndarray, j: int, s: int, t: int) -> tuple[np.ndarray, np.ndarray]:
        self.count += int(np.broadcast_to(self.gain[t] != 0, sums.shape).sum())
        return sums, np.zeros(sums.shape, bool)


@pytest.mark.parametrize("name", ["plain", "slices and cycles", "active rows"])
def test_conversions_are_those_of_a_literal_read(name: str) -> None:
    chip = program(tiny_backbone(), SPECS[name], jax.random.key(0))
    task = masked_task(chip, methods.xbm())
    events = count_events(workload(chip, ONE), lines_on(chip, task.method.rule, task.trained["masks"]))
    gains, size = gains_of(chip, task), {"stem": 12, "blocks/0/conv": 6, "blocks/1/conv": 3}
    for index, (path, tiles) in enumerate(chip.tiles.items()):
        plan, spec = tiles.plan, tiles.plan.spec
        counter = Counting(gains[path])
        levels = np.asarray(tiles.levels, float)
        options = {"rows": spec.tile_height, "cell_bits": spec.cell_bits, "dac_bits": spec.dac_bits}
        literal = Literal(levels[0] - levels[1], conv=plan.conv, adc=counter, **options)  # type: ignore[arg-type]
        literal.read(np.ones((1, size[path], size[path], plan.kernel_shape[2])))
        assert counter.count > 0
        assert int(events.conversions[index]) == counter.count, path


@pytest.mark.parametrize(
    ("name", "method"),
    [*((name, "xbm") for name in SPECS), *((name, "xbm_lines") for name in SPECS if name != "offset")],
)
def test_counts_are_those_of_loops(name: str, method: str) -> None:
    """Array by array: reads, word lines, conversions and sums of the columns that count."""
    spec = SPECS[name]
    chip = program(tiny_backbone(), spec, jax.random.key(0))
    task = masked_task(chip, methods.by_name(method))
    load = workload(chip, ONE, off_lines="cut")
    events = count_events(load, lines_on(chip, task.method.rule, task.trained["masks"]))
    reads, gains = reads_per_example(chip, ONE), gains_of(chip, task)
    for index, (path, tiles) in enumerate(chip.tiles.items()):
        plan, times = tiles.plan, reads[path] * spec.cycles
        found = {"array_reads": 0, "word_lines": 0, "conversions": 0, "column_sums": 0, "crossings": 0}
        height = min(plan.rows, spec.tile_height)
        for t in range(plan.row_tiles):
            rows = min(height, plan.rows - t * height)
            for array in range(plan.array_grid[1]):
                on = [gains[path][t, ..., n] != 0 for n in range(plan.columns) if plan.array_of_column[n] == array]
                if not any(np.any(one) for one in on):
                    continue
                found["array_reads"] += times
                found["word_lines"] += times * rows
                for one in on:
                    lines = np.broadcast_to(one, 2) if spec.polarities == 2 else np.atleast_1d(one)
                    converted = lines.sum() if spec.subtract == "digital" else lines.any()
                    found["conversions"] += times * int(converted) * spec.slices
                    found["column_sums"] += times * int(lines.any())
                    found["crossings"] += times * int(lines.sum()) * spec.slices * rows
        assert {key: int(getattr(events, key)[index]) for key in found} == found, path


def test_an_all_off_mask_costs_no_conversion_and_no_read() -> None:
    chip = tiny_chip(CONVERTED)
    task = masked_task(chip, methods.xbm(), share=1.1)
    events = count_events(workload(chip, ONE), lines_on(chip, task.method.rule, task.trained["masks"]))
    assert float(sum(jnp.sum(v) for v in events[:6])) == 0


def test_conductances_are_those_of_the_lines() -> None:
    """Summed over a tile's rows, the mean over slices: one column by hand."""
    chip = program(tiny_backbone(), SPECS["slices and cycles"], jax.random.key(0))
    counted = inventory(chip, ONE)
    tiles = chip.tiles["blocks/0/conv"]
    cells = np.asarray(tiles.conductance)  # [2, S, 3, 3, 8, 8], rows in the order c, kh, kw
    flat = np.moveaxis(cells, 4, 2).reshape(2, cells.shape[1], 72, 8)
    wanted = flat[:, :, 24:48, 5].mean(1).sum(-1)  # tile 1, column 5
    start = int(np.flatnonzero(np.asarray(counted.layer_of_column) == counted.layers.index("blocks/0/conv"))[0])
    np.testing.assert_allclose(counted.siemens[:, start + 8 + 5], wanted, rtol=1e-6)


def test_conducting_lines_follow_the_choice_for_those_that_are_off() -> None:
    chip = tiny_chip(CONVERTED)
    task = masked_task(chip, methods.xbm())
    on = lines_on(chip, task.method.rule, task.trained["masks"])
    cut, conduct = (count_events(workload(chip, ONE, off_lines=off), on) for off in ("cut", "conduct"))
    assert (cut.siemens < conduct.siemens).all()
    np.testing.assert_array_equal(cut.conversions, conduct.conversions)


def test_activity_is_the_share_of_inputs_that_drive_a_line() -> None:
    """Of the stem by hand: an image of zeros and full scale, in one pass and bit by bit."""
    chip = tiny_chip(CONVERTED)
    images = tiny_images(8)
    found = measure_activity(chip, images)
    assert set(found.nonzero) == set(chip.tiles)
    # After a ReLU about half of the inputs are zero; the stem's are signed and hardly ever zero.
    assert found.nonzero["stem"] > 0.9
    assert 0.2 < found.nonzero["blocks/1/conv"] < 0.8
    assert all(0 < found.square[p] <= found.nonzero[p] for p in chip.tiles)


def test_what_cannot_be_counted_is_refused() -> None:
    chip = program(tiny_backbone(), CONVERTED.replace(adc=Adc(bits=None)), jax.random.key(0))
    with pytest.raises(SpecError, match=r"Adc\.bits = None"):
        inventory(chip, ONE)
    chip = tiny_chip(CONVERTED)
    with pytest.raises(SpecError, match=r"copies = 'stemm'.*one value for each of"):
        workload(chip, ONE, copies={"stemm": 2})
    for wrong in ({"copies": 0}, {"batch": 0}, {"off_lines": "float"}):
        with pytest.raises(SpecError, match=f"{next(iter(wrong))} = "):
            workload(chip, ONE, **wrong)  # type: ignore[arg-type]
    for wrong in ({"images": -1}, {"epochs": 0}, {"schedule": "daily"}, {"backward": "gpu"}, {"rewritten": -0.1}):
        with pytest.raises(SpecError, match=rf"Training\.{next(iter(wrong))} = "):
            Training(**wrong)  # type: ignore[arg-type]


def test_a_chip_without_arrays_is_counted_and_has_no_price() -> None:
    chip = program(tiny_backbone(), CONVERTED, jax.random.key(0), rules={"*": None})
    counted = inventory(chip, ONE)
    assert (counted.arrays, counted.groups, counted.layers, counted.siemens.shape) == (0, 0, (), (2, 0))
    assert all(numbers.shape == (0,) for numbers in counted.per_layer.values())
    assert counted.digital == sum(tiny_backbone().arrays[f"{path}/kernel"].size for path in CONVS)
    assert all(events.size == 0 for events in count_events(workload(chip, ONE), None)[:6])
    with pytest.raises(DataError, match=r"chip\.tiles = {}: at least one layer on arrays"):
        cost(chip, source_task(chip), load_technology("isaac-32nm"), workload(chip, ONE))


def test_a_spec_of_wider_arrays_has_fewer_of_them() -> None:
    counts = [inventory(program(tiny_backbone(), s, jax.random.key(0)), ONE).arrays for s in _sizes()]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def _sizes() -> list[CrossbarSpec]:
    return [CONVERTED.replace(rows=rows, cols=cols) for rows, cols in ((16, 8), (24, 16), (72, 16))]
