"""Tasks of sentences from one bank: mixed batches, of several lengths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import xbm_jax as xbm
from models.tiny import IDEAL
from models.tiny_text import VOCABULARY, sentences, text_chip, text_network
from tasks.tiny import made_up_task
from xbm_jax.errors import DataError, XbmError
from xbm_jax.masks import methods
from xbm_jax.models import InputSpec

SIX = {"trec6": 6, "sst2": 2, "mr": 2, "subj": 2, "cr": 2, "mpqa": 2}
"""The six text tasks and their classes."""


@pytest.mark.parametrize("length", [7, pytest.param(11, marks=pytest.mark.slow)])
def test_a_mixed_batch_of_the_six_tasks_is_answered_as_each_alone(length: int, tmp_path: Path) -> None:
    chip = text_chip(IDEAL)
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    tasks = {name: made_up_task(chip, methods.xbm(), classes, seed) for seed, (name, classes) in enumerate(SIX.items())}
    for name, task in tasks.items():
        bank.put(name, task)
    server, inputs = xbm.serve(chip, bank), sentences(12, length=length)
    names = [*SIX, *reversed(SIX)]
    mixed = server.logits(inputs, names)
    for name in tasks:
        rows = np.array(names) == name
        wanted = xbm.predict(chip, bank.get(name), {key: array[rows] for key, array in inputs.items()})
        np.testing.assert_allclose(mixed[rows, : wanted.shape[1]], wanted, atol=1e-4 * np.abs(wanted).max())
    assert np.isneginf(mixed[np.array(names) != "trec6", 2:]).all() and mixed.shape[1] >= 6


def test_tokens_beyond_the_networks_are_refused_by_name(tmp_path: Path) -> None:
    """Before anything is computed: by a server, `predict`, `calibrate`, and in any example that is to be learned."""
    wrong = sentences(4)
    wrong["ids"][2, 3] = VOCABULARY
    network = text_network()
    assert network.inputs is not None
    tokens = InputSpec(network.inputs.structure, network.inputs.arrays, "mask", (("ids", VOCABULARY),))
    chip = text_chip(IDEAL)
    chip = chip.replace(network=dataclasses.replace(network, inputs=tokens))
    bank = xbm.MaskBank.create(tmp_path / "bank", chip)
    bank.put("two", made_up_task(chip, methods.head_only(), 2))
    server, y = xbm.serve(chip, bank), np.arange(4) % 2
    data = xbm.Dataset("mine", sentences(4), y, wrong, y, ("a", "b"), kind="arrays")
    for ask in (
        lambda: server(wrong, "two"),
        lambda: xbm.predict(chip, bank.get("two"), wrong),
        lambda: xbm.calibrate(chip, wrong),
        lambda: xbm.adapt(chip, data, method=methods.head_only(), key=jax.random.key(0)),
    ):
        with pytest.raises(DataError, match=r"inputs\['ids'\] = '30 in example 2 \(1 such\)': 0\.\.29"):
            ask()
    wrong["ids"][2, 3] = -1
    with pytest.raises(DataError, match="-1 in example 2"):
        server(wrong, "two")


@pytest.mark.parametrize(
    ("below", "message"),
    [
        ({"mask": 2}, "below = 'mask': the key of an array of whole numbers"),
        ({"words": 2}, "below = 'words': the key of an array"),
        ({"ids": 0}, r"below\['ids'\] = 0"),
    ],
)
def test_bounds_of_nothing_are_refused(below: dict[str, int], message: str) -> None:
    example = {"ids": jax.ShapeDtypeStruct((1,), np.int32), "mask": jax.ShapeDtypeStruct((1,), np.bool_)}
    with pytest.raises(XbmError, match=message):
        InputSpec.of(example, below=below)
