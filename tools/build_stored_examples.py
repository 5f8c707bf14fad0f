"""Chips and banks as this version writes them, with what they predict: test data for every later version.

    PYTHONPATH=tests python tools/build_stored_examples.py tests/banks/stored/format_2 converted offset

Run it where the form on disk changes, into a folder of its own; folders of earlier forms are never written again.
`tests/banks/test_stored_examples.py` loads them all. Reads are silent, so that no draw but the chip's own is in what
they predict. The ResNet-20 has few weights that are not zero: in format 1, which was compressed, the chip of a
registered backbone stays small. Later formats are not compressed, and have the tiny network's chips alone.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np

import xbm_jax as xbm
from tasks import tiny
from xbm_jax.crossbar import PUBLISHED, CrossbarSpec, MiloCurve
from xbm_jax.masks import methods
from xbm_jax.models import Backbone

TINY = {
    "converted": CrossbarSpec(rows=24, adc=xbm.Adc(bits=8, per="tile"), device=xbm.Gaussian(0.02)),
    "sliced": CrossbarSpec(
        rows=24,
        weight_bits=6,
        dac_bits=4,
        subtract="digital",
        cell=xbm.Cell(bits=2, on_off=50.0, max_writes=3),
        adc=xbm.Adc(bits=8, gain_mismatch=0.02, offset_mismatch_lsb=0.3),
        device=dataclasses.replace(PUBLISHED["reram_cmo"]),
        faults=xbm.Faults(stuck_on=0.01, stuck_off=0.02),
        row_order="tap",
    ),
    "offset": CrossbarSpec(
        rows=24,
        encoding="offset",
        cell=xbm.Cell(bits=4, on_off=20.0),
        wires=xbm.Wires(1.0, 1.0),
        negative_inputs="two_pass",
    ),
    "curved": CrossbarSpec(rows=24, cell=xbm.Cell(bits=7, on_off=4.0, g_max_siemens=2e-4), curve=MiloCurve(0.3)),
}
METHODS = {name.replace("_", "-"): make() for name, make in methods.METHODS.items()}
IMAGES = 16
AGE_SECONDS = 86400.0


def main(folder: Path, kinds: list[str]) -> None:
    images = tiny.stripes().x_test[:IMAGES]
    for kind, spec in ((kind, TINY[kind]) for kind in kinds if kind in TINY):
        rules = {"conv3": None} if kind == "sliced" else None
        chip = xbm.program(tiny.weights(), spec, jax.random.key(7), rules=rules)
        chip = xbm.calibrate(chip, tiny.stripes().x_train[:64])
        chosen = METHODS if kind == "converted" else {"xbm": METHODS["xbm"], "piggyback": METHODS["piggyback"]}
        write(folder / kind, chip, chosen, images, 4)
    if "resnet20" not in kinds:
        return
    chip = xbm.program(sparse_resnet20(), CrossbarSpec(rows=64, device=xbm.Ideal()), jax.random.key(7))
    chip = xbm.calibrate(chip, np.repeat(np.repeat(tiny.stripes().x_train[:64], 2, 1), 2, 2))
    write(folder / "resnet20", chip, {"xbm": METHODS["xbm"]}, np.repeat(np.repeat(images, 2, 1), 2, 2), 4)


def sparse_resnet20() -> Backbone:
    """The bundled weights, but for all of a kernel's except the largest 32."""
    arrays = {}
    for path, array in xbm.load_backbone("cifar-resnet20").arrays.items():
        values = np.array(array)
        if path.endswith(("conv1/kernel", "conv2/kernel")):
            least = np.sort(np.abs(values).reshape(-1))[-32]
            values = np.where(np.abs(values) < least, 0, values)
        arrays[path] = values
    return xbm.load_backbone("cifar-resnet20", arrays)


def write(folder: Path, chip: xbm.Chip, chosen: dict[str, xbm.Method], images: np.ndarray, classes: int) -> None:
    """A chip, its bank, and the logits of the source task (now, and a day later) and of every task."""
    xbm.save_chip(chip, folder / "chip")
    bank = xbm.MaskBank.create(folder / "bank", chip)
    source = xbm.source_task(chip)
    expected = {
        "images": images,
        "source": xbm.predict(chip, source, images),
        "source_a_day_later": xbm.predict(chip.at(AGE_SECONDS, compensate=True), source, images),
    }
    for seed, (name, method) in enumerate(chosen.items()):
        task = tiny.made_up_task(chip, method, classes, seed=seed)
        bank.put(name, task)
        expected[f"task {name}"] = xbm.predict(chip, bank.get(name), images)
    np.savez_compressed(folder / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or [*TINY, "resnet20"])
