"""Accuracy against the energy of a pass: masks under a budget, against columns switched off by size.

A column that is off is not converted. `xbm.Recipe(budget=...)` puts a price on columns, each layer's its own energy by
a named technology; larger weights of that price buy fewer conversions. Beside it the usual remedy: as many columns of
the smallest weights switched off beforehand (`sum |w| / largest of its layer`, dearest first), norms and head learned.

Command:   python -m experiments.energy_front --data FOLDER
           FOLDER holds the tasks as .npz files; --tasks, --seeds choose a part.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      two to three minutes a training on one core (2,500 images, 8 epochs, ResNet-20).
Writes:    <out>/energy_front.json after every training, then its table and figure. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from experiments.resume import adapt, command, read_records, write_records
from experiments.suite.pages import picture, table
from experiments.suite.parts import Job, chip_for, coded, data_of, hits, learn
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import hardware, report
from xbm_jax.crossbar import nominal_weights
from xbm_jax.masks import Budget, methods
from xbm_jax.models import initial_trained
from xbm_jax.storage.files import replace_file

TECHNOLOGIES = ("survey-22nm", "isaac-32nm", "neurosim-22nm")
PRICED_BY = TECHNOLOGIES[0]
WEIGHTS = (0.0, 0.1, 0.3, 1.0)
KEPT = (0.85, 0.7, 0.55)
LABELS = {"budget": "XBM under a budget", "by size": "smallest columns off", "norms": "norms only"}
ARMS = (*(f"budget {weight:g}" for weight in WEIGHTS), *(f"by size {share:g}" for share in KEPT), "norms only")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with the tasks' .npz files.
        out: folder for the results.
        tasks: by file name.
        arms: some of them.
        seeds: each is a chip, a choice of images and a training of its own.
        images: training images of a task, validation images among them.
        epochs: passes over them.
        batch_size: images a step.
    """

    data: Path
    out: Path = Path("experiments/results")
    tasks: tuple[str, ...] = ("fashion_mnist", "gtsrb43_32px")
    arms: tuple[str, ...] = ARMS
    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 2500
    epochs: int = 8
    batch_size: int = 32

    @property
    def training(self) -> xbm.Recipe:
        """Settings of the training loop."""
        return xbm.Recipe(epochs=self.epochs, batch_size=self.batch_size)

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished trainings to count."""
        return {"images": self.images, "training": self.training, "method": repr(methods.xbm()), "priced": PRICED_BY}


def main(config: Config) -> None:
    """Resume, learn what is missing, write."""
    console, path = Console(), config.out / "energy_front.json"
    rows = read_records(path, config.kept, "rows")
    for seed, task, arm in itertools.product(config.seeds, config.tasks, config.arms):
        place = {"task": task, "arm": arm, "seed": seed}
        if not any(place.items() <= row.items() for row in rows):
            rows.append({**place, **learned(config, task, arm, seed)})
            write_records(path, report.run_context(config.kept, config.seeds[0]), rows, "rows")
        row = next(row for row in rows if place.items() <= row.items())
        console.print(
            f"{task:16} {arm:14} {seed} {row['accuracy']:.1%}, {row['conversions']:.1%} left", highlight=False
        )
    if rows:
        replace_file(path.with_suffix(".md"), page(rows))
        replace_file(path.with_suffix(".png"), picture(draw, rows))


def learned(config: Config, task_name: str, arm: str, seed: int) -> dict[str, Any]:
    """One training: accuracy, conversions that are left and the energy of a pass by each technology."""
    job = Job("energy_front", "cifar-resnet20", task_name, "verified", arm, seed)
    chip, data = chip_for(config, job), data_of(config, job)
    load = hardware.workload(chip, data.x_test[:1], activity=hardware.measure_activity(chip, data.x_train[:128]))
    prices = hardware.column_prices(hardware.load_technology(PRICED_BY), load)
    kind, _, number = arm.rpartition(" ")
    if kind == "budget":
        budget = Budget(prices, float(number)) if float(number) else None
        recipe = dataclasses.replace(config.training, budget=budget)
        given = {"config": recipe, "method": methods.xbm(), "key": jax.random.key(seed)}
        task = adapt(config.out, chip, data, **given)
    elif kind == "by size":
        task = learn(
            config, chip, data, methods.xbm(lr=0.0), seed, start=smallest_off(chip, dict(prices), float(number))
        )
    else:
        task = learn(config, chip, data, methods.norm_only(), seed)
    task, right = xbm.tasks.compact(chip, task), hits(chip, task, data)
    costs = {name: hardware.cost(chip, task, hardware.load_technology(name), load) for name in TECHNOLOGIES}
    whole = hardware.cost(chip, xbm.source_task(chip), hardware.load_technology(PRICED_BY), load)
    return {
        "accuracy": float(np.mean(right)),
        "val_accuracy": task.meta["val_accuracy"],
        "conversions": float(costs[PRICED_BY].events["conversions"].sum() / whole.events["conversions"].sum()),
        "joules": {name: float(found.inference_joules) for name, found in costs.items()},
        "adc_joules": {name: float(found.by_component["ADC"]) for name, found in costs.items()},
        "test_images": len(data.y_test),
        "hits": coded(right),
    }


def smallest_off(chip: xbm.Chip, prices: Mapping[str, float], share: float) -> xbm.Task:
    """A start of XBM whose columns that weigh least for their price are off, until so much of the price is left.

    A channel keeps its largest column, as under a budget.
    """
    method, sizes, paid = methods.xbm(lr=0.0), [], []
    trained = initial_trained(chip, method, 2, jax.random.key(0))
    for path, tiles in chip.tiles.items():
        size = np.zeros((tiles.plan.row_tiles, tiles.plan.columns))
        np.add.at(size, tiles.plan.tile_index, np.abs(np.asarray(nominal_weights(tiles))))
        size = size / size.max()
        sizes.append(np.where(size == size.max(0), np.inf, size).reshape(-1) / max(prices[path], 1e-30))
        paid.append(np.full(size.size, prices[path]))
    order = np.argsort(np.concatenate(sizes), kind="stable")
    cost = np.concatenate(paid)
    off = np.zeros(len(order), bool)
    off[order[np.cumsum(cost[order]) <= (1 - share) * cost.sum()]] = True
    off &= np.isfinite(np.concatenate(sizes))
    parts = np.split(off, np.cumsum([part.size for part in sizes])[:-1])
    masks = {
        path: jnp.where(part.reshape(values.shape), -2.0, values)
        for (path, values), part in zip(trained["masks"].items(), parts, strict=True)
    }
    return xbm.Task({"masks": masks, "norms": chip.norms, "head": {}}, chip.stats, method)


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """An arm a row: accuracy, what is left of conversions, energies by each technology; means over seeds."""
    parts = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own, lines = [row for row in rows if row["task"] == task], []
        for arm in dict.fromkeys(row["arm"] for row in own):
            mine = [row for row in own if row["arm"] == arm]
            accuracy = [100 * row["accuracy"] for row in mine]
            spread = f" ± {np.std(accuracy, ddof=1):.1f}" if len(mine) > 1 else ""
            energies = [_microjoules(mine, name) for name in TECHNOLOGIES]
            left = f"{100 * np.mean([row['conversions'] for row in mine]):.0f}"
            lines.append([arm, f"{np.mean(accuracy):.1f}{spread}", left, *energies, str(len(mine))])
        heads = ["", "test accuracy, %", "conversions left, %", *(f"{n}, uJ" for n in TECHNOLOGIES), "seeds"]
        parts.append(f"**{task}, ResNet-20, verified chip.**\n\n{table(heads, lines)}")
    note = (
        f"Energy of one example, all that each technology counts; columns are priced by {PRICED_BY}. Behind the mean "
        "one standard deviation between seeds (a chip, a choice of images and a training each): differences below it "
        "are undecided.\n"
    )
    return "\n".join([*parts, note])


def _microjoules(rows: Sequence[Mapping[str, Any]], technology: str) -> str:
    """The mean of the rows that have one."""
    found = [row["joules"][technology] for row in rows if technology in row["joules"]]
    return f"{1e6 * np.mean(found):.3g}" if found else "-"


def draw(figure: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """A panel a task: accuracy against the energy of a pass by the pricing technology, means over seeds."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure.set_size_inches(4.8 * len(tasks), 3.9)
    looks = {"budget": ("#D55E00", "o-"), "by size": ("#0072B2", "s-"), "norms": ("#009E73", "^")}
    for axes, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        for family, (colour, style) in looks.items():
            arms = [arm for arm in dict.fromkeys(r["arm"] for r in own) if arm.startswith(family)]
            points = sorted(_point([r for r in own if r["arm"] == arm]) for arm in arms)
            if points:
                label = {"budget": "XBM under a budget", "by size": "smallest columns off", "norms": "norms only"}[
                    family
                ]
                axes.plot(*zip(*points, strict=True), style, color=colour, ms=5, label=label)
        axes.set(xlabel=f"one example by {PRICED_BY}, µJ", ylabel="test accuracy, %", title=task)
        axes.grid(color="#DDDDDD", lw=0.5)
        axes.legend(fontsize=8, frameon=False)


def _point(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    joules = 1e6 * np.mean([row["joules"][PRICED_BY] for row in rows])
    return float(joules), float(100 * np.mean([row["accuracy"] for row in rows]))


if __name__ == "__main__":
    with command("energy_front"):
        main(tyro.cli(Config, description=__doc__))
