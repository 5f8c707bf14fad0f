"""How well do source networks survive on the named chips? Accuracy of the float network and of chips, on source images.

ResNet-20 on CIFAR-10's test images; MobileNetV2 and ResNet-50 on Imagenette, told apart from all 1,000 classes.
Most of Imagenette's images are of ImageNet's training split: its numbers compare a network with itself on a chip, and
are no test accuracies.

Command:   python -m experiments.source_accuracy --data FOLDER
           FOLDER holds cifar10.npz, imagenette_128px.npz and the weights of the two large backbones.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      ResNet-20 half a minute a chip; the large backbones some minutes a chip.
Writes:    <out>/source_accuracy.json after every chip, and its table. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from experiments.resume import read_records, write_records
from experiments.suite.chips import CHIPS, backbone_of, chip_of
from experiments.suite.pages import table
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.storage.files import replace_file

SETS: Mapping[str, str] = {
    "cifar-resnet20": "cifar10",
    "mobilenet-v2": "imagenette_128px",
    "resnet50-v1": "imagenette_128px",
}
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""Its classes among ImageNet's, in the order of its labels."""
FLOAT = "float"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with the images and weights.
        out: folder for the results.
        backbones: some of the three.
        chips: named chips.
        seeds: each is a chip of its own.
    """

    data: Path
    out: Path = Path("experiments/results")
    backbones: tuple[str, ...] = tuple(SETS)
    chips: tuple[str, ...] = ("verified", "relaxed")
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished chips to count."""
        return {"chips": {name: CHIPS[name] for name in self.chips}}


def main(config: Config) -> None:
    """Resume, measure what is missing, write."""
    console, path = Console(), config.out / "source_accuracy.json"
    rows = read_records(path, config.kept, "rows")
    for backbone in config.backbones:
        for chip, seed in [(FLOAT, 0), *((chip, seed) for seed in config.seeds for chip in config.chips)]:
            place = {"backbone": backbone, "chip": chip, "seed": seed}
            if not any(place.items() <= row.items() for row in rows):
                rows.append({**place, **measured(config, backbone, chip, seed)})
                write_records(path, report.run_context(config.kept, config.seeds[0]), rows, "rows")
                console.print(f"{backbone:16} {chip:9} {seed} {rows[-1]['accuracy']:.1%}", highlight=False)
        jax.clear_caches()
    replace_file(path.with_suffix(".md"), page(rows))


def measured(config: Config, backbone: str, kind: str, seed: int) -> dict[str, Any]:
    """Accuracy of a network on one chip, or of the float network."""
    images, classes, seen = images_of(config.data, backbone)
    weights = backbone_of(backbone, config.data)
    if kind == FLOAT:
        parts = [weights.logits(images[i : i + 50]) for i in range(0, len(images), 50)]
        logits = np.concatenate([np.asarray(part) for part in parts])
    else:
        chip = chip_of(CHIPS[kind], weights, seen, seed)
        logits = xbm.predict(chip, xbm.source_task(chip), images, key=jax.random.key(seed), batch_size=50)
    return {"accuracy": float(np.mean(np.argmax(logits, -1) == classes)), "images": len(images)}


@lru_cache(maxsize=1)
def images_of(folder: Path, backbone: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, the source network's class of each, and images to calibrate on where no ranges came with the weights."""
    data = xbm.load(f"npz:{folder / SETS[backbone]}.npz")
    seen = xbm.data.calibration_images(data)
    if SETS[backbone] == "cifar10":
        return data.x_test, data.y_test, seen
    images, labels = (np.concatenate(pair) for pair in ((data.x_train, data.x_test), (data.y_train, data.y_test)))
    return images, np.asarray(IMAGENETTE)[labels], seen


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """A backbone a row, a chip a column: means over seeds, and the lowest."""
    chips = [chip for chip in dict.fromkeys(row["chip"] for row in rows) if chip != FLOAT]
    lines = []
    for backbone in dict.fromkeys(row["backbone"] for row in rows):
        own = {chip: [r["accuracy"] for r in rows if (r["backbone"], r["chip"]) == (backbone, chip)] for chip in chips}
        (reference,) = (r for r in rows if (r["backbone"], r["chip"]) == (backbone, FLOAT))
        cells = [
            f"{100 * np.mean(found):.1f} ({100 * np.min(found):.1f} of {len(found)})" if found else "-"
            for found in own.values()
        ]
        images = f"{SETS[backbone]}, {reference['images']:,}"
        lines.append([backbone, images, f"{100 * reference['accuracy']:.1f}", *cells])
    note = (
        "Accuracy in % of the images: the mean over chips, in brackets the lowest of so many. Imagenette is told apart "
        "from 1,000 classes, mostly on images that ImageNet's networks were trained on.\n"
    )
    return f"{table(['backbone', 'images', FLOAT, *chips], lines)}\n{note}"


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except xbm.XbmError as error:
        sys.exit(f"source_accuracy: {error}")
