"""Fewer rows, more bits: what does a finer column mask buy?

An array of R rows gives XBM one mask bit for every R weights, so R sets what a task stores. Fewer rows also mean
smaller partial sums under each converter, so R changes the chip as well. XBM learns Fashion-MNIST (the bundled subset)
on chips of 32, 64 and 128 rows. Its two ends are trained at 64 rows: `norm_only` has the same norms and head and no
mask, Piggyback has a bit for every weight and rewrites cells.

Command:   python -m experiments.rows_and_bits                          (2,400 images, 10 epochs; seeds: --seeds 0 1 2)
           python -m experiments.rows_and_bits --images 600 --epochs 2   (reduced)
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      reduced: 4 minutes of CPU time, 12 by the clock on two cores that other jobs kept busy. The whole one takes
           20 times the training steps and has not been timed.
Writes:    <out>/results.json after every finished row, then figure.png and REPORT.md. Run again it carries on from the
           rows that are there; with more --rows or --seeds it adds theirs. Other settings need another --out.

Expect, of the reduced command (seed 0, 1,000 test images: two standard errors of one accuracy are 3 points):

    norm_only        0 mask bits   39.3 %
    xbm, 128 rows    2,544         60.3 %
    xbm, 64 rows     4,400         59.8 %
    xbm, 32 rows     8,432         67.5 %
    piggyback      267,696         72.0 %   58,236 cells written; all others 0

So each of the masks is worth more than 20 points here, and the step from 64 to 128 rows is within the error. Norms
(88,064 bits) and head (20,800 bits) are the same in every row. Two epochs are far from the end of training.

The same for every row of the table: images, epochs, each method's default learning rates, and the calibration: input
scales and converter ranges are measured on 256 of the task's training images at every R, also at 64, where the weights
came with ranges measured on CIFAR-10. The keys of chip and training follow from the seed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from experiments.resume import adapt, check_same, command, forget_learned
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report

METHODS: dict[str, Callable[[], xbm.Method]] = {
    "xbm": xbm.methods.xbm,
    "norm_only": xbm.methods.norm_only,
    "piggyback": xbm.methods.piggyback,
}

SPEC = xbm.CrossbarSpec(
    rows=64,
    weight_bits=8,
    cell=xbm.Cell(bits=7, on_off=100),
    adc=xbm.Adc(bits=8),
    device=xbm.Gaussian(sigma=0.01),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        out: folder for results.json, figure.png and REPORT.md.
        images: training images, of 2,400; the same share of every class.
        test_images: test images, of 1,000.
        epochs: passes over the training images.
        batch_size: images per step.
        calibration_images: training images that scales and converter ranges are measured on.
        rows: word lines of an array; XBM is trained on each.
        ends: methods to compare with.
        ends_at: rows of the chip that the ends are trained on.
        seeds: each is a chip and a training of its own.
    """

    out: Path = Path("runs/rows_and_bits")
    images: int = 2400
    test_images: int = 1000
    epochs: int = 10
    batch_size: int = 32
    calibration_images: int = 256
    rows: tuple[int, ...] = (32, 64, 128)
    ends: tuple[Literal["norm_only", "piggyback"], ...] = ("norm_only", "piggyback")
    ends_at: int = 64
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for rows in (*self.rows, self.ends_at):
            SPEC.replace(rows=rows)  # an impossible number shows now, not after the chips before it were trained
        if not self.seeds:
            raise xbm.DataError("seeds", self.seeds, "at least one")

    @property
    def training(self) -> xbm.Recipe:
        """Settings of the training loop."""
        return xbm.Recipe(epochs=self.epochs, batch_size=self.batch_size)

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished rows to count; the rest only says which rows there are."""
        names = ("images", "test_images", "calibration_images")
        return {name: getattr(self, name) for name in names} | {"training": self.training, "spec": SPEC}

    @property
    def plan(self) -> Iterator[tuple[int, int, str]]:
        """(seed, rows, method) of every row, those of one chip behind one another."""
        for seed in self.seeds:
            for rows in dict.fromkeys((*self.rows, self.ends_at)):
                names = ("xbm",) * (rows in self.rows) + self.ends * (rows == self.ends_at)
                yield from ((seed, rows, name) for name in names)


def main(config: Config) -> list[report.Row]:
    """Resume, train what is missing, write; in this order."""
    console, path = Console(), config.out / "results.json"
    finished = read_finished(config, path)
    keep(config, path, finished)  # a folder that cannot be written shows before the training, not after it
    done = {(row.seed, row.rows, row.method): row for row in finished}
    for seed, rows, name in config.plan:
        if (seed, rows, name) not in done:
            done[seed, rows, name] = learn(config, seed, rows, name, console)
            keep(config, path, list(done.values()))
        row = done[seed, rows, name]
        console.print(f"{rows:4} rows  {name:10} seed {seed}  {row.accuracy:6.1%}  {row.mask_bits:7,} mask bits")
    shown = list(done.values())
    draw(shown, config.out / "figure.png")
    report.print_table(labelled(shown), console)
    head = [("What this is", f"```text\n{__doc__}```")]
    context = report.run_context(config.kept, config.seeds[0])
    report.write_report(config.out / "REPORT.md", labelled(shown), context, head, [config.out / "figure.png"])
    return shown


def learn(config: Config, seed: int, rows: int, name: str, console: Console) -> report.Row:
    """One row: a method on the chip of ``seed`` and ``rows``."""
    chip, data = calibrated_chip(config, seed, rows), task_data(config)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    with report.TrainingProgress(console) as progress:
        bar = progress.task(f"{rows} rows {name}")
        given = {"config": config.training, "report": bar.report}
        task = adapt(config.out, chip, data, method=METHODS[name](), key=key, **given)
    return report.row_of(chip, task, name=data.name, seed=seed)


@lru_cache(maxsize=1)
def calibrated_chip(config: Config, seed: int, rows: int) -> xbm.Chip:
    """The backbone on arrays of ``rows``, scales and ranges measured on the task's training images."""
    chip = xbm.program(xbm.load_backbone("cifar-resnet20"), SPEC.replace(rows=rows), jax.random.key(seed))
    return xbm.calibrate(chip, xbm.data.calibration_images(task_data(config), config.calibration_images, seed))


@lru_cache(maxsize=1)
def task_data(config: Config) -> xbm.Dataset:
    """The subset of Fashion-MNIST, grey repeated to three channels; the same for every seed."""
    data = xbm.load("fashion_mnist").subset(config.images, config.test_images)
    return dataclasses.replace(data, x_train=xbm.data.to_rgb(data.x_train), x_test=xbm.data.to_rgb(data.x_test))


def read_finished(config: Config, path: Path) -> list[report.Row]:
    """The rows of an earlier run of the same settings; a run of other settings is not written over."""
    if not path.exists():
        return []
    rows, context = report.read_results(path)
    check_same(config.out, context["config"], config.kept, "rows")
    return rows


def keep(config: Config, path: Path, rows: list[report.Row]) -> None:
    """Replace results.json in one step."""
    report.write_results(path, rows, report.run_context(config.kept, config.seeds[0]))
    forget_learned()


def labelled(rows: list[report.Row]) -> list[report.Row]:
    """Rows whose method says what sets them apart in a table."""
    return [dataclasses.replace(row, method=f"{row.method}, {row.rows} rows, seed {row.seed}") for row in rows]


def draw(rows: list[report.Row], path: Path) -> None:
    """Accuracy against mask bits: a dot for each row, a line through XBM's means, a level line for no bits at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for method, colour in (("xbm", "#D55E00"), ("piggyback", "#009E73")):
        own = [row for row in rows if row.method == method]
        if not own:
            continue
        axes.plot([row.mask_bits for row in own], [100 * row.accuracy for row in own], "o", color=colour, label=method)
        bits = {row.mask_bits: row.rows for row in sorted(own, key=lambda row: row.mask_bits)}
        means = [100 * np.mean([row.accuracy for row in own if row.mask_bits == b]) for b in bits]
        axes.plot(list(bits), means, color=colour, lw=1)
        for (b, r), mean in zip(bits.items(), means, strict=True):
            axes.annotate(f"R = {r}", (b, mean), (5, -5), textcoords="offset points", va="top", fontsize=8)
    controls = [100 * row.accuracy for row in rows if row.method == "norm_only"]
    if controls:
        axes.axhline(float(np.mean(controls)), color="#0072B2", ls="--", lw=1, label="norm_only (no mask bits)")
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=3)
    axes.set(xscale="log", xlabel="mask bits per task", ylabel="test accuracy on fashion_mnist, %")
    axes.margins(x=0.15, y=0.25)
    axes.grid(color="#D9D9D9", lw=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    part = path.with_name(f".{path.name}")
    figure.savefig(part, format="png", dpi=150, metadata={"Software": None})
    part.replace(path)


if __name__ == "__main__":
    with command("rows_and_bits"):
        main(tyro.cli(Config, description=__doc__))
