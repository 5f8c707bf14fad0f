"""How should a column mask be learned? Estimators, rates and alphabets, compared on validation images alone.

XBM and XMA have no published code. Every arm below learns the same tasks from the same images for the same epochs on a
chip of ideal cells and converters, 64 rows, norms trained; the figure of merit is the accuracy on the held-out 15 % of
the training images in the best epoch. A seed is a head, a split and an order; the table's differences are paired by
seed, with an interval over seeds. On ResNet-20 arms differ in the decision's gradient (identity; KSM's sigmoid;
annealed), a first phase of real gains that are then snapped (`soft_until`), the learning rates, the shifts. On
MobileNetV2, whose tasks have few images and so few steps, they differ in the rates.

Command:   python -m experiments.estimators --data FOLDER --tasks gtsrb43_32px
           python -m experiments.estimators --data FOLDER --seeds 0 1 2 --arms "xbm identity 1e-3 norms 1e-2"
           "soft eps 1e-2 levels" --tasks gtsrb43_32px quickdraw100 fashion_mnist --out experiments/results/recipes
           python -m experiments.estimators --data FOLDER --backbone mobilenet-v2 --pixels 80 --tasks cub40_112px
           FOLDER holds the tasks and imagenet_mobilenetv2.npz. --arms norm_only piggyback runs these alone; --images,
           --epochs.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      on one core a bit over a minute a task and arm of ResNet-20 (2,500 images, 8 epochs), six of MobileNetV2.
Writes:    <out>/estimators_<backbone>.json after every arm, and its table. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from experiments.resume import adapt, command, read_records, write_records
from experiments.suite.chips import ChipKind, backbone_of, chip_of
from experiments.suite.parts import PIXELS
from experiments.tasks import local_task
from rich.console import Console
from scipy.special import stdtrit

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.masks import (
    Annealed,
    Binary,
    Column,
    Estimator,
    Granularity,
    Identity,
    Line,
    Method,
    Shift,
    Sigmoid,
    methods,
)
from xbm_jax.storage.files import replace_file

Place = tuple[str, str, int]
"""Task, arm and seed."""

SPEC = xbm.CrossbarSpec(rows=64, adc=xbm.Adc(bits=None))


def _binary(estimator: Estimator, lr: float, start: float = 1e-2, threshold: float = 5e-3) -> Method:
    return methods.masked("xbm", Column(), Binary(threshold), estimator, start, mask_lr=lr, norm_lr=1e-3)


def _slow(method: Method, mask_lr: float = 1e-3) -> Method:
    """A method with rates for many features and few steps."""
    return dataclasses.replace(method, mask_lr=mask_lr, norm_lr=1e-3, head_lr=1e-3)


def _soft(granularity: Granularity, lr: float = 3e-2, start: float = 0.05, **annealed: float) -> Method:
    """Soft gains that harden until 80 % of the training; norms and head at the methods' own rates."""
    return methods.masked("soft", granularity, Binary(0.0), Annealed(**annealed), start, mask_lr=lr)


def _shift(lr: float, width: int = 3, top: int = 0, soft_until: float = 0.0) -> Method:
    shift = Shift(width=width, top=top)
    return methods.masked("xma", Column(), shift, Identity(soft_until=soft_until), 1.0, mask_lr=lr, norm_lr=1e-3)


_XBM = methods.xbm(estimator="identity")
_STEEP = Annealed(beta_start=200.0, beta_end=2e4, hold=0.0)

RESNET20: Mapping[str, Method] = {
    "norm_only": dataclasses.replace(methods.norm_only(), norm_lr=1e-3),
    "piggyback": dataclasses.replace(methods.piggyback(), norm_lr=1e-3),
    "finetune": dataclasses.replace(methods.finetune(), norm_lr=1e-3),
    # Identity, the mask 5e-3 away from its threshold: rates in steps to turn it are 5, 1.7, 0.5
    "xbm identity 1e-3": _binary(Identity(), 1e-3),
    "xbm identity 3e-3": _binary(Identity(), 3e-3),
    "xbm identity 1e-2": _binary(Identity(), 1e-2),
    # Further from the threshold and nearer to it: 20 steps and 1
    "xbm identity 1e-3 start 2.5e-2": _binary(Identity(), 1e-3, 2.5e-2),
    "xbm identity 1e-3 start 6e-3": _binary(Identity(), 1e-3, 6e-3),
    "xbm sigmoid 1e-3": _binary(Sigmoid(), 1e-3),
    "xbm sigmoid 3e-3": _binary(Sigmoid(), 3e-3),
    # A sigmoid that hardens
    "xbm annealed 1e-3": _binary(_STEEP, 1e-3),
    "xbm annealed 3e-3": _binary(_STEEP, 3e-3),
    "xbm annealed 1e-2": _binary(_STEEP, 1e-2),
    # Real gains from 1, snapped at a half
    "xbm real first 1e-2": _binary(Identity(soft_until=0.5), 1e-2, 1.0, 0.5),
    "xma 3e-3": _shift(3e-3),
    "xma 1e-2": _shift(1e-2),
    "xma 3e-2": _shift(3e-2),
    "xma real first 1e-2": _shift(1e-2, soft_until=0.5),
    # Norms that learn faster, and the controls that then have to be met
    "norm_only norms 1e-2": methods.norm_only(),
    "xbm identity 3e-4": _binary(Identity(), 3e-4),
    "xbm identity 1e-3 norms 3e-3": dataclasses.replace(_binary(Identity(), 1e-3), norm_lr=3e-3),
    "xbm identity 1e-3 norms 1e-2": dataclasses.replace(_binary(Identity(), 1e-3), norm_lr=1e-2),
    "xma 1e-2 norms 1e-2": dataclasses.replace(_shift(1e-2), norm_lr=1e-2),
    "xma 3e-2 norms 1e-2": dataclasses.replace(_shift(3e-2), norm_lr=1e-2),
    "piggyback norms 1e-2": methods.piggyback(),
    "finetune norms 1e-2": methods.finetune(),
    # Soft gains that harden, columns and lines; what a column's gain could give at most
    "soft": _soft(Column()),
    "soft floor 0.2": _soft(Column(), floor=0.2),
    "soft 1e-2": _soft(Column(), 1e-2),
    "soft start 0.2": _soft(Column(), start=0.2),
    "soft start 0.5": _soft(Column(), start=0.5),
    "soft lines": _soft(Line()),
    "soft lines floor 0.2": _soft(Line(), floor=0.2),
    # Where batch norm undoes a column's gain its gradient is rounding error: it moves nothing
    "xbm identity eps 1e-2": dataclasses.replace(_XBM, mask_eps=1e-2),
    **{
        f"soft eps 1e-2{name}": dataclasses.replace(method, mask_eps=1e-2)
        for name, method in {
            "": _soft(Column()),
            " floor 0.2": _soft(Column(), floor=0.2),
            " start 0.2": _soft(Column(), start=0.2),
            " start 0.5": _soft(Column(), start=0.5),
            " 1e-2": _soft(Column(), 1e-2),
            " until 0.6": _soft(Column(), soft_until=0.6),
            " lines": _soft(Line()),
            " levels": methods.xbm_levels(),
        }.items()
    },
    "gains of 8 bits": methods.xma2(share=0.0, gain_bits=8),
}
MOBILENET: Mapping[str, Method] = {
    "head_only head 1e-2": methods.head_only(),
    "head_only": _slow(methods.head_only()),
    "norm_only norms 1e-2 head 1e-2": methods.norm_only(),
    "norm_only": _slow(methods.norm_only()),
    "xbm 1e-3": _slow(_XBM, 1e-3),
    "xbm 2e-4": _slow(_XBM, 2e-4),
    "xma 3e-2": _slow(methods.xma(), 3e-2),
    "xma 3e-3": _slow(methods.xma(), 3e-3),
    "piggyback 1e-3": _slow(methods.piggyback(), 1e-3),
    "piggyback 2e-4": _slow(methods.piggyback(), 2e-4),
}
ARMS: Mapping[str, Mapping[str, Method]] = {"cifar-resnet20": RESNET20, "mobilenet-v2": MOBILENET}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with the tasks' .npz files.
        backbone: the network.
        pixels: size of the images; the backbone's own if not named.
        out: folder for the results.
        tasks: names of .npz files.
        arms: which to run; all of the backbone's if none are named.
        images: training images of a task, validation images among them.
        epochs: passes over them.
        seeds: each is a head, a split and an order.
    """

    data: Path
    backbone: str = "cifar-resnet20"
    pixels: int | None = None
    out: Path = Path("experiments/results")
    tasks: tuple[str, ...] = ("gtsrb43_32px", "fashion_mnist")
    arms: tuple[str, ...] = ()
    images: int = 2500
    epochs: int = 8
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if self.backbone not in ARMS:
            raise xbm.DataError("--backbone", self.backbone, "one of " + ", ".join(ARMS))
        for arm in self.arms:
            if arm not in ARMS[self.backbone]:
                raise xbm.DataError("--arms", arm, "one of " + ", ".join(map(repr, ARMS[self.backbone])))

    @property
    def size(self) -> int:
        """Pixels of the images' sides."""
        return PIXELS[self.backbone] if self.pixels is None else self.pixels

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished arms to count."""
        return {"images": self.images, "pixels": self.size, "epochs": self.epochs, "spec": SPEC}


def main(config: Config) -> None:
    """Resume, learn what is missing, write; seed by seed, so that what stands can be compared at any time."""
    console, path = Console(), config.out / f"estimators_{config.backbone}.json"
    finished = read_finished(config, path)
    for seed in config.seeds:
        for arm in config.arms or ARMS[config.backbone]:
            for task in config.tasks:
                at = (task, arm, seed)
                if at not in finished:
                    finished[at] = learn(config, *prepared(config, task), ARMS[config.backbone][arm], seed)
                    keep(config, path, finished)
                reached = 100 * finished[at]["val_accuracy"]
                console.print(f"{task:14} {arm:26} {seed} {reached:5.1f}", highlight=False, soft_wrap=True)
        replace_file(path.with_suffix(".md"), table(finished))


@lru_cache
def prepared(config: Config, task: str) -> tuple[xbm.Chip, xbm.Dataset]:
    """The chip and the images that all arms and seeds of a task share."""
    data, backbone = local_task(task, config.data, config.size), backbone_of(config.backbone, config.data)
    images = xbm.data.to_rgb(xbm.data.calibration_images(data))
    chip = chip_of(ChipKind(SPEC), backbone, images, 0)
    data = xbm.for_chip(chip, data)
    return chip, data.subset(min(config.images, len(data.y_train)), len(data.y_test), 0)


def learn(config: Config, chip: xbm.Chip, data: xbm.Dataset, method: Method, seed: int) -> dict[str, Any]:
    """Validation accuracy of one arm on one task."""
    training = xbm.Recipe(epochs=config.epochs)
    meta = adapt(config.out, chip, data, method=method, key=jax.random.key(seed), config=training).meta
    history = [row["val_accuracy"] for row in meta["history"]]
    active = float(np.mean(list(meta["active_columns"].values())))  # the mean over layers
    seconds = round(meta["seconds"])
    return {"val_accuracy": meta["val_accuracy"], "active_columns": active, "history": history, "seconds": seconds}


def read_finished(config: Config, path: Path) -> dict[Place, dict[str, Any]]:
    """The arms of an earlier run of the same settings."""
    return {(r.pop("task"), r.pop("arm"), r.pop("seed")): r for r in read_records(path, config.kept, "arms")}


def keep(config: Config, path: Path, finished: Mapping[Place, dict[str, Any]]) -> None:
    """Replace the records, an arm of a task and seed a line."""
    arms = ({"task": task, "arm": arm, "seed": seed, **row} for (task, arm, seed), row in finished.items())
    write_records(path, report.run_context(config.kept, config.seeds[0]), arms, "arms")


def table(finished: Mapping[Place, dict[str, Any]]) -> str:
    """Validation accuracy in per cent, means over seeds: an arm a row, a task a column; differences to the first."""
    tasks, arms = list(dict.fromkeys(task for task, _, _ in finished)), list(dict.fromkeys(a for _, a, _ in finished))
    seeds = list(dict.fromkeys(seed for _, _, seed in finished))
    lines = [f"| arm | {' | '.join(tasks)} | mean - {arms[0]} | seeds |", f"| --- |{' ---: |' * (len(tasks) + 2)}"]
    for arm in arms:
        reached = [[100 * finished[t, arm, s]["val_accuracy"] for s in seeds if (t, arm, s) in finished] for t in tasks]
        cells = ["-" if not v else f"{np.mean(v):.1f}" for v in reached]
        whole = [s for s in seeds if all((t, a, s) in finished for t in tasks for a in (arm, arms[0]))]
        lines.append(
            f"| {arm} | {' | '.join(cells)} | {_difference(finished, tasks, arm, arms[0], whole)} | {len(whole)} |"
        )
    note = "Differences are of means over the tasks, paired by seed, with a 95 % interval over seeds (Student's t)."
    return "\n".join([*lines, "", note]) + "\n"


def _difference(
    finished: Mapping[Place, dict[str, Any]], tasks: Sequence[str], arm: str, other: str, seeds: Sequence[int]
) -> str:
    if arm == other or not seeds:
        return "-"
    of = [[finished[t, a, s]["val_accuracy"] for t in tasks] for s in seeds for a in (arm, other)]
    differences = 100 * (np.mean(of[::2], 1) - np.mean(of[1::2], 1))
    if len(seeds) == 1:
        return f"{differences[0]:+.1f} (one seed)"
    half = stdtrit(len(seeds) - 1, 0.975) * np.std(differences, ddof=1) / len(seeds) ** 0.5
    return f"{np.mean(differences):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    with command("estimators"):
        main(tyro.cli(Config, description=__doc__))
