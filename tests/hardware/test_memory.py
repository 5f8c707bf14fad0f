"""Bits, arrays and cells, against counts by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.tiny import CLASSES, IDEAL, resnet20, resnet20_chip, tiny_chip
from xbm_jax.crossbar import Cell, Conv, CrossbarSpec, Plan, nominal_weights, plan
from xbm_jax.hardware import arrays_used, layer_arrays, task_bits, task_cells_written
from xbm_jax.masks import Binary, Column, Filter, Identity, Kernel, Line, Method, Weight, methods
from xbm_jax.models import Chip, initial_trained, program
from xbm_jax.tasks import Task, source_task
from xbm_jax.tasks.task import stored


def new_task(chip: Chip, method: Method, classes: int = 10) -> Task:
    """A task as training starts it; with norms in full it owns running statistics."""
    state = chip.stats if method.norms == "full" else {}
    return Task(initial_trained(chip, method, classes, jax.random.key(1)), state, method)


def draw(shape: tuple[int, ...]) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def outline(method: Method, classes: int = 10) -> Task:
    """A task on ResNet-20 of zeros: bits follow from its shapes."""
    shapes = jax.eval_shape(lambda: new_task(resnet20_chip(), method, classes))
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)


LINES = methods.masked("lines", Line(), Binary(), Identity())

# ---------------------------------------------------------------------------------------------------------------------
# Bits of a task on ResNet-20

CHANNELS = 16 * 7 + 32 * 6 + 64 * 6  # of its 19 norms
WEIGHTS = 27 * 16 + 6 * 144 * 16 + (144 + 5 * 288) * 32 + (288 + 5 * 576) * 64
KERNELS = 3 * 16 + 6 * 16 * 16 + (16 + 5 * 32) * 32 + (32 + 5 * 64) * 64
RANK_4 = 4 * (27 + 16 + 6 * (144 + 16) + 144 + 32 + 5 * (288 + 32) + 288 + 64 + 5 * (576 + 64))


def test_mask_bits_of_resnet20() -> None:
    """XBM: 1 tile of 16 columns in the stem, 3 of 16 six times, 3 and five times 5 of 32, 5 and five times 9 of 64."""
    assert 16 * 1 + 6 * 16 * 3 + 32 * 3 + 5 * 32 * 5 + 64 * 5 + 5 * 64 * 9 == 4_400
    assert WEIGHTS == 267_696
    chip = resnet20_chip()
    assert task_bits(chip, outline(LINES)).mask_bits == 2 * 4_400
    by_shape = [name for name in methods.METHODS if name != "xma2"]  # whose bits follow from what it chose
    counts = {name: task_bits(chip, outline(methods.by_name(name))) for name in by_shape}
    assert {name: bits.mask_bits for name, bits in counts.items()} == {
        "head_only": 0,
        "norm_only": 0,
        "xbm": 4_400,
        "xbm_levels": 4_400 + 19 * 16,
        "xbm_lines": 2 * 4_400,
        "xma": 3 * 4_400,
        "piggyback": 267_696,
        "piggyback_ternary": 2 * 267_696,
        "ksm_binary": KERNELS,
        "ksm_soft": 8 * KERNELS,
        "lora": 0,
        "finetune": 0,
    }
    assert {name: bits.weight_bits_stored for name, bits in counts.items() if bits.weight_bits_stored} == {
        "lora": 16 * RANK_4,
        "finetune": 8 * WEIGHTS,
    }
    assert {bits.backbone_weights for bits in counts.values()} == {WEIGHTS}
    assert {bits.backbone_parameters for bits in counts.values()} == {269_722}
    assert counts["piggyback"].mask_share_of_weights == 1
    assert counts["xbm"].mask_share_of_weights == 4_400 / 267_696
    assert counts["xbm"].mask_share_of_parameters == 4_400 / 269_722


def test_xma2_stores_the_weights_of_chosen_arrays_and_scales_for_the_others() -> None:
    """8 arrays of 8 columns; one of 24 rows and one of 72 - 48 = 24 are chosen."""
    chip, method = tiny_chip(), methods.xma2(gain_bits=5)
    task = new_task(chip, method, CLASSES)
    assert (task_bits(chip, task).mask_bits, task_bits(chip, task).weight_bits_stored) == (8 + 5 * 64, 0)
    task.trained["masks"]["stem"]["arrays"] = jnp.array([[1.0], [-1.0]])
    task.trained["masks"]["blocks/0/conv"]["arrays"] = jnp.array([[-1.0], [-1.0], [1.0]])
    for each in (task, stored(chip, task)):
        bits = task_bits(chip, each)
        assert (bits.mask_bits, bits.weight_bits_stored) == (8 + 5 * (64 - 16), 8 * (24 + 24) * 8)


@pytest.mark.parametrize(("norms", "arrays"), [("frozen", 0), ("affine", 2), ("full", 4)])
def test_norm_and_head_bits(norms: Any, arrays: int) -> None:
    """Scale and bias, with ``full`` also mean and variance, two halves where folded; 64 inputs of the head, a bias."""
    chip, task = resnet20_chip(), outline(methods.xbm(norms), classes=7)
    for bits, norm, head in (
        (task_bits(chip, task, compact=False), 32 * arrays * CHANNELS, 32 * (64 * 7 + 7)),
        (task_bits(chip, task), 16 * min(arrays, 2) * CHANNELS, 8 * 64 * 7 + 2 * 16 * 7),
    ):
        assert (bits.norm_bits, bits.head_bits) == (norm, head)
        assert bits.total == 4_400 + bits.norm_bits + bits.head_bits


def test_stored_tasks_have_the_same_bits() -> None:
    chip = tiny_chip()
    for name in methods.METHODS:
        task = new_task(chip, methods.by_name(name), CLASSES)
        assert task_bits(chip, stored(chip, task)) == task_bits(chip, task)


def test_the_source_task_owns_only_a_head() -> None:
    bits = task_bits(resnet20_chip(), source_task(resnet20_chip()))
    assert (bits.mask_bits, bits.norm_bits, bits.head_bits) == (0, 0, 8 * 640 + 2 * 16 * 10)
    assert bits.total == bits.head_bits


def test_digital_layers_have_no_mask_bits() -> None:
    chip = program(resnet20(), CrossbarSpec(), jax.random.key(0), rules={"layer*": None})
    bits = task_bits(chip, new_task(chip, methods.xbm()))
    assert (bits.mask_bits, bits.backbone_weights, bits.backbone_parameters) == (16, 432, 269_722)


# ---------------------------------------------------------------------------------------------------------------------
# Cells


def test_column_masks_write_no_cell() -> None:
    chip = tiny_chip()
    task = new_task(chip, methods.xbm(), CLASSES)
    masks = jax.tree.map(lambda m: draw(m.shape), task.trained["masks"])
    assert task_cells_written(chip, task.replace(trained={**task.trained, "masks": masks})) == 0
    for name in ("head_only", "norm_only"):
        assert task_cells_written(chip, new_task(chip, methods.by_name(name), CLASSES)) == 0


@pytest.mark.parametrize("as_codes", [False, True])
def test_piggyback_writes_the_cells_that_hold_something(as_codes: bool) -> None:
    """One pair of 7-bit cells a weight: of each masked weight exactly one cell is above level 0, unless it is zero."""
    chip = tiny_chip()
    task = new_task(chip, methods.piggyback(), CLASSES)
    assert task_cells_written(chip, task) == 0
    masks = {p: 0.01 * draw(m.shape) for p, m in task.trained["masks"].items()}
    task = task.replace(trained={**task.trained, "masks": masks})
    off = {
        p: (np.asarray(m) <= np.float32(5e-3)) & (np.asarray(nominal_weights(chip.tiles[p])) != 0)
        for p, m in masks.items()
    }
    expected = sum(int(o.sum()) for o in off.values())
    assert 0 < expected < 27 * 8 + 2 * 72 * 8
    assert task_cells_written(chip, stored(chip, task) if as_codes else task) == expected


def test_finetune_writes_what_moved_by_half_a_step() -> None:
    chip = tiny_chip()
    task = new_task(chip, methods.finetune(), CLASSES)
    assert task_cells_written(chip, task) == 0
    weights = dict(task.trained["masks"])
    path = "blocks/0/conv"
    tiles = chip.tiles[path]
    ints = np.round(np.asarray(weights[path] / tiles.weight_scale)).astype(int)
    step = np.zeros(ints.shape)
    step[0, 0, 0] = np.where(ints[0, 0, 0] > 0, -1.0, 1.0)  # one level nearer to zero, or on past it
    step[1, 1] = 0.4  # rounds back
    weights[path] = jnp.asarray((ints + step) * np.asarray(tiles.weight_scale), jnp.float32)
    changed = task.replace(trained={**task.trained, "masks": weights})
    assert task_cells_written(chip, changed) == 8


def test_a_flipped_sign_writes_both_cells_of_a_pair() -> None:
    chip = tiny_chip()
    task = new_task(chip, methods.finetune(), CLASSES)
    weights = jax.tree.map(lambda w: -w, task.trained["masks"])
    held = sum(int((np.asarray(w) != 0).sum()) for w in weights.values())
    assert task_cells_written(chip, task.replace(trained={**task.trained, "masks": weights})) == 2 * held


# ---------------------------------------------------------------------------------------------------------------------
# Arrays

PAIR = CrossbarSpec(rows=16, cols=16)  # 8 logical columns an array


@pytest.mark.parametrize(
    ("shape", "spec", "conv", "arrays"),
    [
        ((16, 8), PAIR, None, 1),
        ((17, 8), PAIR, None, 2),
        ((16, 9), PAIR, None, 2),
        ((33, 17), PAIR, None, 3 * 3),
        ((16, 8), PAIR.replace(cell=Cell(4)), None, 2),  # two slices, two polarities: 4 columns an array
        ((16, 8), PAIR.replace(cell=Cell(3)), None, 4),  # three slices: floor(16 / 6) = 2 columns an array
        ((16, 8), PAIR.replace(cols=17), None, 1),  # a seventeenth bit line holds no pair
        ((3, 3, 8, 8), PAIR, Conv(), 5),
        ((3, 3, 4, 8), PAIR, Conv(groups=2), 2 * 3),  # 36 rows and 4 columns in each group
        ((3, 3, 1, 24), PAIR, Conv(groups=24), 24),  # depthwise: 9 rows and 1 column each
        ((3, 3, 1, 24), PAIR, Conv(groups=2), 2 * 2),  # 12 columns in each group
        ((1, 1, 64, 9), PAIR.replace(rows=64), Conv(), 2),
    ],
)
def test_arrays_of_a_layer(shape: tuple[int, ...], spec: CrossbarSpec, conv: Conv | None, arrays: int) -> None:
    assert layer_arrays(plan(np.ones(shape), spec, conv)) == arrays


def test_arrays_of_a_chip_are_those_of_its_layers() -> None:
    """27 and twice 72 rows of 8 columns."""
    assert arrays_used(tiny_chip()) == 2 + 3 + 3
    chip = program(resnet20(), CrossbarSpec(), jax.random.key(0), rules={"layer[13]*": IDEAL, "layer2*": None})
    by_hand = 1 + 6 * 6 * 2 + 12 * 8 + 5 * 24 * 8  # 64x64 in the stem, then 24 rows and 8 columns an array
    assert arrays_used(chip) == by_hand


# ---------------------------------------------------------------------------------------------------------------------
# ResNet-50, by its shapes alone


def resnet50_kernels() -> list[tuple[int, ...]]:
    """HWIO shapes of its 53 convolutions (He 2016): stem, bottlenecks, and a projection in each first block."""
    shapes, width_in = [(7, 7, 3, 64)], 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            shapes += [(1, 1, width_in, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            shapes += [(1, 1, width_in, 4 * width)] if block == 0 else []
            width_in = 4 * width
    return shapes


def resnet50_plans(spec: CrossbarSpec) -> list[Plan]:
    return [Plan(shape, spec, Conv(), True, "shapes alone") for shape in resnet50_kernels()]


@pytest.mark.parametrize(("rows", "bits"), [(32, 732_992), (64, 366_528), (72, 339_968), (128, 183_936), (256, 93_888)])
def test_column_masks_of_resnet50(rows: int, bits: int) -> None:
    plans = resnet50_plans(CrossbarSpec(rows=rows))
    assert len(plans) == 53
    assert sum(int(np.prod(Column().shape(p))) for p in plans) == bits


def test_other_masks_of_resnet50() -> None:
    plans = resnet50_plans(CrossbarSpec())
    count = {type(g): sum(int(np.prod(g.shape(p))) for p in plans) for g in (Filter(), Kernel(), Weight())}
    assert count == {Filter: 26_560, Kernel: 13_385_920, Weight: 23_454_912}


@pytest.mark.parametrize(("rows", "arrays"), [(64, 5_727), (128, 1_448)])
def test_arrays_of_resnet50(rows: int, arrays: int) -> None:
    """Published counts take one cell a weight. A pair takes two, so twice the bit lines hold as many weights."""
    pairs = CrossbarSpec(rows=rows, cols=2 * rows, weight_bits=2, cell=Cell(1))
    assert pairs.bitlines_per_column == 2
    assert sum(layer_arrays(p) for p in resnet50_plans(pairs)) == arrays
    square = dataclasses.replace(pairs, cols=rows)
    assert arrays < sum(layer_arrays(p) for p in resnet50_plans(square)) <= 2 * arrays
