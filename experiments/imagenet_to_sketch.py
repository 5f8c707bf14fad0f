"""The published comparison: one ImageNet ResNet-50, five tasks, each method by its own recipe.

Piggyback (Mallya 2018) and KSM (Yang 2021) report CUBS, Stanford Cars, Flowers, WikiArt and Sketch: 30 epochs, batches
of 32, 224 pixels; CUBS and Cars cropped to their boxes and mirrored, the others random-resized crops of 256-pixel
images, mirrored. Both papers chose the best epoch on the test split; here it is chosen on 15 % of the training images.

Command:   python -m experiments.imagenet_to_sketch --weights resnet50.safetensors --data-dir TFDS_FOLDER
           The five sets are prepared once from your folders: xbm.data.prepare_published(name, folder, data_dir).
           python -m experiments.imagenet_to_sketch --model resnet50-v1 --weights imagenet_resnet50.npz
           --stand-ins FOLDER --pixels 64 --images 256 --epochs 2   runs it end to end on small stand-ins (.npz files in
           FOLDER): a smoke test whose accuracies mean nothing.
Hardware:  one GPU; WikiArt at 256 pixels takes 11 GB of host memory.
Time:      not measured in full. Reduced it is compilation and test images: some five minutes a method and set
           on one core.
Writes:    <out>/results.json after every row, and table.md with the published rows beside. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from experiments.resume import adapt, check_same, command, forget_learned
from experiments.suite.jobs import GRIDS
from experiments.suite.pages import table
from experiments.tasks import local_task
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.data import Augment
from xbm_jax.masks import Method, methods
from xbm_jax.storage.files import replace_file

TASKS: Mapping[str, str] = {
    "cubs_cropped": "cub40_112px",
    "cars_cropped": "cars40_112px",
    "flowers": "flowers102_64px",
    "wikiart": "pacs_art_painting_112px",
    "sketch": "pacs_sketch_112px",
}
"""The published sets, and what stands in for each."""
CROPPED = ("cubs_cropped", "cars_cropped")


def _recipe(make: Any, rate: float, norms: str, **options: Any) -> Method:
    return dataclasses.replace(make(norms=norms), mask_lr=rate, norm_lr=rate, head_lr=rate, **options)


def _ours(make: Any) -> tuple[Method, str]:
    """A method with the rates of the large suite."""
    return GRIDS["large_suite"].tuned(make()), "cosine"


RECIPES: Mapping[str, tuple[Method, str]] = {
    # name: method with its rates, schedule
    "finetune": (_recipe(methods.finetune, 1e-3, "full", optimizer="sgd"), "step"),
    "piggyback": (_recipe(methods.piggyback, 1e-4, "frozen"), "step"),
    "piggyback_ternary": (_recipe(methods.piggyback_ternary, 1e-4, "frozen"), "step"),
    "ksm_binary": (_recipe(methods.ksm_binary, 2e-4, "full"), "cosine"),
    "ksm_soft": (_recipe(methods.ksm_soft, 2e-4, "full"), "cosine"),
    "head_only": _ours(methods.head_only),
    "norm_only": _ours(methods.norm_only),
    "xbm": _ours(methods.xbm),
    "xbm_levels": _ours(methods.xbm_levels),
    "xbm_lines": _ours(methods.xbm_lines),
    "xma": _ours(methods.xma),
    "xma2": _ours(methods.xma2),
    "lora": _ours(methods.lora),
}
"""Published recipes for published methods (Mallya 2018; Yang 2021); ours for the others."""

PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "fine-tuning": (82.83, 91.83, 96.56, 75.60, 80.78),
    "Piggyback (released masks)": (81.77, 89.81, 95.23, 71.43, 80.25),
    "CPG": (83.59, 92.80, 96.62, 77.15, 80.33),
}
"""ResNet-50, %: as the papers report them; epochs chosen on the test split."""

SPEC = xbm.CrossbarSpec(rows=64, cell=xbm.Cell(bits=7, on_off=100.0), adc=xbm.Adc(bits=8))


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        weights: ImageNet weights of the model, a file or hf://owner/repository/file.
        model: resnet50 (torchvision, timm) or resnet50-v1 (Keras, Caffe).
        data_dir: where TFDS finds the prepared sets; its own folder if not named.
        stand_ins: folder of small .npz files instead of the sets.
        out: folder for results.json and table.md.
        tasks: which sets. methods: which rows.
        pixels: side of what the network sees.
        images: training images at most; all if not named.
        epochs: passes. batch_size: images per step. seed: of everything.
    """

    weights: str
    model: str = "resnet50"
    data_dir: Path | None = None
    stand_ins: Path | None = None
    out: Path = Path("runs/imagenet_to_sketch")
    tasks: tuple[str, ...] = tuple(TASKS)
    methods: tuple[str, ...] = tuple(RECIPES)
    pixels: int = 224
    images: int | None = None
    epochs: int = 30
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (("tasks", TASKS), ("methods", RECIPES)):
            unknown = [value for value in getattr(self, name) if value not in allowed]
            if unknown:
                raise xbm.DataError(f"--{name}", ", ".join(unknown), "some of " + ", ".join(allowed))

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished rows to count."""
        names = ("model", "pixels", "images", "epochs", "batch_size", "seed")
        recipes = {name: repr(recipe) for name, recipe in RECIPES.items()}
        fixed = {"stand_ins": self.stand_ins is not None, "spec": SPEC, "recipes": recipes}
        return {n: getattr(self, n) for n in names} | fixed


def main(config: Config) -> None:
    """Resume, learn what is missing, write."""
    console, path = Console(), config.out / "results.json"
    rows = read_rows(config, path)
    backbone = xbm.load_backbone(config.model, config.weights)
    for name in config.tasks:
        missing = [m for m in config.methods if (name, m) not in {(row.task, row.method) for row in rows}]
        if not missing:
            continue
        data, augment = load(config, name)
        chip = xbm.program(backbone, SPEC, jax.random.key(config.seed))
        data = xbm.for_chip(chip, data)  # sketches are grey
        images = xbm.data.calibration_images(data, 128, config.seed)
        chip = xbm.calibrate(chip, images if augment.size is None else augment.evaluate(images))
        for method in missing:
            rows.append(learn(config, chip, data, name, method, augment))
            report.write_results(path, rows, report.run_context(config.kept, config.seed))
            forget_learned()
            console.print(f"{name:14} {method:18} {rows[-1].accuracy:6.1%}", highlight=False)
    replace_file(config.out / "table.md", results_table(config, rows))


def load(config: Config, name: str) -> tuple[xbm.Dataset, Augment]:
    """A set at the recipe's size, and how its training images are changed."""
    cropped = name in CROPPED
    stored = config.pixels if cropped else config.pixels * 8 // 7  # 224: 256
    if config.stand_ins is None:
        data = xbm.load(f"tfds:{name}", image_size=stored, data_dir=config.data_dir)
    else:
        data = local_task(TASKS[name], config.stand_ins, stored)
    if config.images is not None and config.images < len(data.y_train):
        data = data.subset(config.images, len(data.y_test))
    return data, Augment() if cropped else Augment(size=config.pixels)


def learn(config: Config, chip: xbm.Chip, data: xbm.Dataset, name: str, method: str, augment: Augment) -> report.Row:
    """One row: a method's recipe on one set."""
    recipe, schedule = RECIPES[method]
    training = xbm.Recipe(config.epochs, config.batch_size, schedule=schedule, augment=augment)
    task = adapt(config.out, chip, data, method=recipe, key=jax.random.key(config.seed), config=training)
    return report.row_of(chip, task, name=name, seed=config.seed)


def read_rows(config: Config, path: Path) -> list[report.Row]:
    """The rows of an earlier run of the same settings; a run of other settings is not written over."""
    if not path.exists():
        return []
    rows, context = report.read_results(path)
    check_same(config.out, context["config"], config.kept, "rows")
    return rows


def results_table(config: Config, rows: list[report.Row]) -> str:
    """Ours, and the published rows for the real sets."""
    found = {(row.method, row.task): row for row in rows}
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [found[method, task] for task in TASKS if (method, task) in found]
        cells = [f"{100 * found[method, t].accuracy:.1f}" if (method, t) in found else "-" for t in TASKS]
        mean = f"{100 * np.mean([row.accuracy for row in own]):.1f}"
        lines.append([method, *cells, mean, f"{own[0].mask_bits:,}", f"{own[0].weight_bits_stored:,}"])
    if config.stand_ins is None:
        for name, values in PUBLISHED.items():
            lines.append([f"{name}, published", *(f"{v:.1f}" for v in values), f"{np.mean(values):.1f}", "-", "-"])
    heads = [TASKS[t] if config.stand_ins else t for t in TASKS]
    return table(["method", *heads, "mean", "mask bits", "weight bits"], lines)


if __name__ == "__main__":
    with command("imagenet_to_sketch"):
        main(tyro.cli(Config, description=__doc__))
