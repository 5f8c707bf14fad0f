"""Tasks of sentences from one bank: mixed batches, of several lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import xbm_jax as xbm
from models.tiny import IDEAL
from models.tiny_text import sentences, text_chip
from tasks.tiny import made_up_task
from xbm_jax.masks import methods


@pytest.mark.parametrize("length", [7, pytest.param(11, marks=pytest.mark.slow)])
def test_a_mixed_batch_of_sentences_is_answered_as_each_alone(length: int, tmp_path: Path) -> None:
    chip = text_chip(IDEAL)
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    tasks = {name: made_up_task(chip, methods.xbm(), classes, classes) for name, classes in (("six", 6), ("two", 2))}
    for name, task in tasks.items():
        bank.put(name, task)
    server, inputs = xbm.serve(chip, bank), sentences(6, length=length)
    names = ["six", "two"] * 3
    mixed = server.logits(inputs, names)
    for name in tasks:
        rows = np.array(names) == name
        wanted = xbm.predict(chip, bank.get(name), {key: array[rows] for key, array in inputs.items()})
        np.testing.assert_allclose(mixed[rows, : wanted.shape[1]], wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.isneginf(mixed[1::2, 2:]).all()
