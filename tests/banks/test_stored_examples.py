"""Chips and banks that earlier versions wrote load and predict as they did; see `tools/build_stored_examples.py`."""

from __future__ import annotations

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.models import Chip
from xbm_jax.tasks import Task, predict, source_task

STORED = Path(__file__).parent / "stored"
EXAMPLES = sorted(path.relative_to(STORED).as_posix() for path in STORED.glob("*/*"))
A_DAY = 86400.0

# Float products may be summed in another order by another XLA; an 8-bit converter step is some 1e-2 of these logits.
TOLERANCE = 1e-5


def opened(example: str) -> tuple[Chip, dict[str, np.ndarray]]:
    with np.load(STORED / example / "expected.npz") as arrays:
        expected = dict(arrays)
    network = None if example.endswith("resnet20") else tiny.network()
    return load_chip(STORED / example / "chip", network), expected


def assert_predicts(chip: Chip, task: Task, images: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(predict(chip, task, images), wanted, rtol=TOLERANCE, atol=TOLERANCE)


def test_there_are_examples_of_every_form():
    assert {example.split("/")[0] for example in EXAMPLES} == {"format_1", "format_2"}
    assert len(EXAMPLES) == 7


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_chip_of_before_predicts_as_it_did(example):
    chip, expected = opened(example)
    assert_predicts(chip, source_task(chip), expected["images"], expected["source"])
    aged = chip.at(A_DAY, compensate=True)
    assert_predicts(aged, source_task(aged), expected["images"], expected["source_a_day_later"])


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_task_of_a_bank_of_before_predicts_as_it_did(example):
    chip, expected = opened(example)
    bank = MaskBank.open(STORED / example / "bank", chip)
    assert [f"task {name}" for name in bank.names] == sorted(name for name in expected if name.startswith("task "))
    # Eleven methods are eleven compilations: one bank shows them all, the others the two that matter most.
    for name in bank.names:
        assert_predicts(chip, bank.get(name), expected["images"], expected[f"task {name}"])


def test_a_task_can_be_put_beside_those_of_before(tmp_path):
    shutil.copytree(STORED / "format_1/offset", tmp_path / "offset")
    chip = load_chip(tmp_path / "offset/chip", tiny.network())
    bank = MaskBank.open(tmp_path / "offset/bank", chip)
    task = tiny.made_up_task(chip, tiny.METHODS["xbm"], seed=5)
    bank.put("new", task)
    bank.put("xbm", task)
    assert bank.names == ["new", "piggyback", "xbm"]
    tiny.assert_same_bits(jax.tree.leaves(bank.get("xbm")), jax.tree.leaves(bank.get("new")))
