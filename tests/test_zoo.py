"""The zoo's table: sizes counted from abstract networks are those of a chip, and the page is what the command gives."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from experiments import zoo

from cost import slow_but
from models.tiny import resnet20
from xbm_jax.hardware.memory import arrays_used
from xbm_jax.models import MODELS, array_weights, digital_weights, program, reads_per_example

PAGE = zoo.PAGE.read_text(encoding="utf-8")


def test_counted_without_a_chip_as_with_one() -> None:
    chip, row = program(resnet20(), zoo.SPEC, jax.random.key(0)), zoo.row("cifar-resnet20")
    reads = reads_per_example(chip, np.zeros((1, 32, 32, 3), np.uint8))
    plans = {path: tiles.plan for path, tiles in chip.tiles.items()}
    assert row.parameters == resnet20().num_parameters == 269_722
    assert (row.on_arrays, row.digital) == (array_weights(chip), sum(digital_weights(chip).values()))
    assert row.arrays == arrays_used(chip)
    assert row.mask_bits == sum(plan.row_tiles * plan.columns for plan in plans.values()) == 4_400
    assert row.reads == sum(reads.values())
    assert row.macs == sum(reads[path] * plan.rows * plan.columns for path, plan in plans.items())


@pytest.mark.parametrize("name", slow_but(["cifar-resnet20"], [*MODELS, *zoo.VARIANTS]))
def test_the_page_has_the_row(name: str) -> None:
    line = zoo.table([zoo.row(name)]).splitlines()[-1]
    assert line in PAGE.splitlines()


def test_the_page_has_every_backbone_and_its_head() -> None:
    assert PAGE.startswith(zoo.table([]).rstrip("\n"))
    assert all(f"| `{name}` |" in PAGE for name in MODELS)
    assert all(f"| {name}: `{model}`" in PAGE for name, (model, _) in zoo.VARIANTS.items())
