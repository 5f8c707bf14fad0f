"""How much energy does adaption without a write save? XBM against methods that rewrite cells, from learned tasks.

The XBM paper claims «up to 40 % energy saved in adaption» (Zhang, ASP-DAC 2022) and gives no scenario. Here each method
learns the same task on the same chip; how many cells it writes is counted, at the end, after every epoch and at every
step; what that costs follows from a technology's constants (`docs/cost.md`). The page says where the saving lies, under
which assumptions it is 10, 40 and 70 %, and what it is at equal accuracy.

Command:   python -m experiments.forty_percent            (Fashion-MNIST, which ships with the package)
           --tasks npz:FILE for others of 28 or 32 pixels; --seeds, --epochs.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      two minutes a method and seed on one core; three for those whose cells are counted at every step.
Writes:    <out>/forty_percent.json after every training, then its page. Run again it carries on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from experiments.resume import adapt, command, read_records, write_records
from experiments.suite.pages import table
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import hardware, report, streams
from xbm_jax.crossbar import cells_written
from xbm_jax.hardware.adaption import cell_joules, written
from xbm_jax.hardware.workloads import Backward
from xbm_jax.masks import methods
from xbm_jax.models import initial_trained
from xbm_jax.storage.files import replace_file
from xbm_jax.training.run import Run, begin
from xbm_jax.training.step import train_step

METHODS = ("norm_only", "xbm", "ksm_binary", "piggyback", "finetune")
REWRITING = ("ksm_binary", "piggyback", "finetune")
TECHNOLOGIES = ("isaac-32nm", "puma-32nm", "neurosim-22nm", "survey-22nm")
MARKS = (0.1, 0.4, 0.7)
EVERY = 8
"""Steps of which one is looked at."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        out: folder for the results.
        tasks: fashion_mnist, quickdraw, omniglot or npz:FILE.
        seeds: each is a chip and a training of its own.
        epochs: passes over the training images.
        batch_size: images a step.
    """

    out: Path = Path("experiments/results")
    tasks: tuple[str, ...] = ("fashion_mnist",)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 8
    batch_size: int = 32

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished trainings to count."""
        recipe = xbm.Recipe(epochs=self.epochs, batch_size=self.batch_size)
        return {"recipe": recipe, "chip": xbm.spec_by_name("verified"), "methods": [repr(make(m)) for m in METHODS]}


def make(name: str) -> xbm.Method:
    """A method as everywhere."""
    return methods.by_name(name)


def main(config: Config) -> None:
    """Resume, learn what is missing, write."""
    console, path = Console(), config.out / "forty_percent.json"
    rows = read_records(path, config.kept, "rows")
    for seed, task, method in itertools.product(config.seeds, config.tasks, METHODS):
        place = {"task": task, "method": method, "seed": seed}
        if not any(place.items() <= row.items() for row in rows):
            rows.append({**place, **learned(config, task, method, seed)})
            write_records(path, report.run_context(config.kept, config.seeds[0]), rows, "rows")
        row = next(row for row in rows if place.items() <= row.items())
        console.print(f"{task:16} {method:12} {seed} {row['accuracy']:.1%} {row['cells']:,} cells", highlight=False)
    replace_file(path.with_suffix(".md"), page(config, rows))


def learned(config: Config, task_name: str, name: str, seed: int) -> dict[str, Any]:
    """One training: accuracy epoch by epoch, and what it writes at the end, after epochs and at steps."""
    data = xbm.load(task_name)
    chip = xbm.program(xbm.load_backbone("cifar-resnet20"), xbm.spec_by_name("verified"), jax.random.key(seed))
    data = xbm.for_chip(chip, data)
    recipe = xbm.Recipe(epochs=config.epochs, batch_size=config.batch_size)
    task = adapt(config.out, chip, data, method=make(name), key=jax.random.key(seed), config=recipe)
    changes = written(chip, task.method.rule, task.trained["masks"])
    found = {
        "accuracy": task.meta["accuracy"],
        "val_accuracy": [epoch["val_accuracy"] for epoch in task.meta["history"]],
        "images": task.meta["images"]["train"],
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "cells": int(changes["cells"].sum()),
        "active_columns": float(np.mean([float(v) for v in task.meta["active_columns"].values()])),
    }
    # How much moves on the way is the same method's, whatever the seed: one training is enough to count it.
    if name in REWRITING and seed == config.seeds[0]:
        found |= writes_on_the_way(Run(chip, data, make(name), recipe, jax.random.key(seed)))
    return found


def writes_on_the_way(run: Run) -> dict[str, float]:
    """Cells that differ from one epoch's end to the next, and from a step to the next, looked at every few steps."""
    state, rule = begin(run), run.method.rule
    assert rule is not None  # it rewrites cells
    train, by_epoch, by_step = jax.tree.map(jax.numpy.array, state.train), [], []

    def levels(values: Any) -> dict[str, Any]:
        return {path: _applied(rule, tiles, values[path]) for path, tiles in run.chip.tiles.items()}

    def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
        return sum(int(cells_written(one[path], other[path])) for path in one)

    last_epoch = levels(train.trained["masks"])
    for epoch in range(run.recipe.epochs):
        order = run.order(epoch)
        for i in range(run.steps):
            step = epoch * run.steps + i
            inputs, targets = run.batch(order[i], epoch, i)
            key = run.draw(streams.Run.STEP, step)
            looked_at = step % EVERY == 0
            before = levels(train.trained["masks"]) if looked_at else None
            train, _ = train_step(run.method.learned, run.how, run.chip, train, inputs, targets, run.pace(step), key)
            if before is not None:
                by_step.append(differing(before, levels(train.trained["masks"])))
        ended = levels(train.trained["masks"])
        by_epoch.append(differing(last_epoch, ended))
        last_epoch = ended
    return {"cells_per_epoch": float(np.mean(by_epoch)), "cells_per_step": float(np.mean(by_step))}


_applied = jax.jit(lambda rule, tiles, values: rule.apply(tiles, values)[0], static_argnums=0)
"""A layer as a rule has it."""


@lru_cache(maxsize=1)
def chip_and_inputs(task_name: str) -> tuple[xbm.Chip, Any]:
    """A chip, and images of the task: what a cost depends on is the same for all of its kind."""
    chip = xbm.program(xbm.load_backbone("cifar-resnet20"), xbm.spec_by_name("verified"), jax.random.key(0))
    return chip, xbm.for_chip(chip, xbm.load(task_name)).x_test[:128]


@cache
def costs(
    task_name: str, name: str, technology: str, backward: Backward, sizes: tuple[int, int, int]
) -> dict[str, float]:
    """Joules of learning by part, writes left out, and of one write of a cell with all its pulses (`each`).

    Of the task as training starts it: passes have every column on, whatever the masks become.
    """
    chip, images = chip_and_inputs(task_name)
    tech, method = hardware.load_technology(technology), make(name)
    trained = initial_trained(chip, method, 10, jax.random.key(0))
    task = xbm.tasks.compact(chip, xbm.Task(trained, chip.stats if method.norms == "full" else {}, method))
    activity = hardware.measure_activity(chip, images)
    images_seen, epochs, batch_size = sizes
    training = hardware.Training(images_seen, epochs, batch_size, backward=backward)
    load = hardware.workload(chip, images[:1], activity=activity, training=training)
    parts = hardware.cost(chip, task, tech, load).adaption_joules
    found = {part: float(value) for part, value in parts.items() if part not in ("cell writes", "verify reads")}
    siemens = load.inventory.levels_siemens.mean()
    pulse, check = (cell_joules(tech, what, siemens) for what in ("write", "read"))
    each = float("nan") if pulse is None else float(pulse * tech.get("write_pulses", 1))
    return found | {"each": each + float((check or 0.0) * tech.get("verify_reads", 0))}


BACKWARD: tuple[Backward, ...] = ("digital", "arrays")
SCHEDULES = ("end", "epoch", "step")


class Scenario(NamedTuple):
    """One set of assumptions."""

    technology: str
    backward: Backward
    schedule: str


def mean_of(rows: Sequence[Mapping[str, Any]], method: str, scenario: Scenario, epochs: float) -> dict[str, float]:
    """Joules of a method's training and its writes, and how many there are; means over seeds, after so many epochs."""
    own = [row for row in rows if row["method"] == method]
    whole, sizes = own[0]["epochs"], (own[0]["images"], own[0]["epochs"], own[0]["batch_size"])
    parts = dict(costs(own[0]["task"], method, scenario.technology, scenario.backward, sizes))
    each, trained = parts.pop("each"), sum(parts.values())
    cells = float(np.mean([row["cells"] for row in own]))
    if method in REWRITING and scenario.schedule != "end":
        (counted,) = (row for row in own if "cells_per_step" in row)
        steps = counted["images"] // counted["batch_size"]
        by = {"epoch": counted["cells_per_epoch"], "step": counted["cells_per_step"] * steps}
        cells = by[scenario.schedule] * epochs
    trained *= epochs / whole
    return {"trained": trained, "cells": cells, "each": each, "joules": trained + (cells * each if cells else 0.0)}


def same_accuracy(rows: Sequence[Mapping[str, Any]], method: str) -> float:
    """Epochs after which a method is as good on validation images as XBM at its best: a mean over seeds, or NaN."""
    found = []
    for row in (r for r in rows if r["method"] == method):
        (xbm_row,) = (r for r in rows if r["method"] == "xbm" and r["seed"] == row["seed"])
        goal = max(xbm_row["val_accuracy"])
        reached = [epoch for epoch, value in enumerate(row["val_accuracy"], 1) if value >= goal]
        found.append(reached[0] if reached else np.nan)
    return float(np.mean(found))


def page(config: Config, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the claim is under each set of assumptions."""
    parts = [_memory()]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        parts += [_methods_table(task, own), _savings_table(own, config.epochs), _needed_table(own, config.epochs)]
        parts += [_equal_table(own)]
    return "\n".join(parts)


def _memory() -> str:
    """The paper's 1.4 %, from ResNet-50's own shapes."""
    network = xbm.models.named_network("resnet50-v1", 1000)
    shapes = [network.kernel_shape(path) for path in network.kernels if path in network.convs]
    weights = sum(int(np.prod(shape)) for shape in shapes)
    bits = sum(-(-int(np.prod(shape[:-1])) // 64) * shape[-1] for shape in shapes)
    return (
        f"Mask memory, ResNet-50, 64 rows: {bits:,} bits, {100 * bits / weights:.3f} % of its {weights:,} convolution "
        f"weights, {100 * bits / network.num_parameters:.3f} % of its {network.num_parameters:,} parameters.\n"
    )


def _methods_table(task: str, rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        counted = next((row for row in own if "cells_per_step" in row), {})
        lines.append(
            [
                method,
                f"{100 * np.mean([r['accuracy'] for r in own]):.1f}",
                f"{np.mean([r['cells'] for r in own]):,.0f}",
                *(f"{counted[key]:,.0f}" if key in counted else "-" for key in ("cells_per_epoch", "cells_per_step")),
                f"{100 * np.mean([r['active_columns'] for r in own]):.0f}",
            ]
        )
    seeds, first = sorted({row["seed"] for row in rows}), rows[0]
    heads = ["method", "test accuracy, %", "cells at the end", "an epoch", "a step", "columns on, %"]
    told = f"{first['images']:,} training images, {first['epochs']} epochs of batches of {first['batch_size']}"
    return (
        f"**{task}, ResNet-20, verified chip.** {told}; seeds {', '.join(map(str, seeds))}. Cells that differ from the "
        f"backbone's at the end, from one epoch's end to the next's, from a step to the next.\n\n{table(heads, lines)}"
    )


def _rows_of_assumptions() -> Iterator[tuple[str, list[Scenario]]]:
    """Unit of the backward pass and schedule, each with all technologies: a row of a table."""
    for backward, schedule in itertools.product(BACKWARD, SCHEDULES):
        yield f"{backward}, {schedule}", [Scenario(technology, backward, schedule) for technology in TECHNOLOGIES]


def span(values: Sequence[float], digits: str = ".0f") -> str:
    """The least and the largest of what is known."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    low, high = (f"{value:{digits}}" for value in (min(known), max(known)))
    return low if low == high else f"{low} to {high}"


def saved(rows: Sequence[Mapping[str, Any]], method: str, scenario: Scenario, epochs: float) -> float:
    """Share of a method's energy, after so many epochs, that XBM saves."""
    mine = mean_of(rows, "xbm", scenario, rows[0]["epochs"])
    return 1 - mine["joules"] / mean_of(rows, method, scenario, epochs)["joules"]


def _savings_table(rows: Sequence[Mapping[str, Any]], epochs: int) -> str:
    lines = []
    for name, group in _rows_of_assumptions():
        mine = [1e3 * mean_of(rows, "xbm", one, epochs)["joules"] for one in group]
        cells = [span([100 * saved(rows, m, one, epochs) for one in group]) for m in REWRITING]
        others = [mean_of(rows, "finetune", one, epochs) for one in group]
        writes = [100 * one["cells"] * one["each"] / one["joules"] for one in others]
        lines.append([name, span(mine, ".3g"), *cells, span(writes, ".2g")])
    heads = ["backward pass on, written at", "XBM, mJ", *(f"saved against {m}, %" for m in REWRITING)]
    told = f"Energy of learning the task, its range over {', '.join(TECHNOLOGIES)}."
    return f"{told}\n\n{table([*heads, 'writes in fine-tuning, %'], lines)}"


def _needed_table(rows: Sequence[Mapping[str, Any]], epochs: int) -> str:
    """What one write of a cell would have to cost for XBM to save so much against fine-tuning."""
    lines = []
    for name, group in _rows_of_assumptions():
        pairs = [[mean_of(rows, m, one, epochs) for m in ("xbm", "finetune")] for one in group]
        cells = []
        for mark in MARKS:
            needed = [(mine["trained"] / (1 - mark) - other["trained"]) / other["cells"] for mine, other in pairs]
            cells.append("0" if max(needed) <= 0 else span([1e9 * n for n in needed], ".2g"))
        lines.append([name, span([1e9 * other["each"] for _, other in pairs], ".2g"), *cells])
    heads = ["backward pass on, written at", "a write is, nJ", *(f"for {100 * m:.0f} %, nJ" for m in MARKS)]
    told = (
        "What a cell's write, all its pulses, has to cost for XBM to save so much against fine-tuning; 0: it saves "
        "more though writes be free, because it needs no gradients of weights."
    )
    return f"{told}\n\n{table(heads, lines)}"


def _equal_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The same where each method stops as soon as it is as good as XBM."""
    lines, names = [], []
    for method in REWRITING:
        epochs, cells, names = same_accuracy(rows, method), [], []
        for name, group in _rows_of_assumptions():
            names.append(name)
            cells.append(span([100 * saved(rows, method, one, epochs) for one in group]))
        reached = f"{epochs:.1f}" if np.isfinite(epochs) else "not in every seed"
        lines.append([method, reached, *(cells if np.isfinite(epochs) else ["-"] * len(cells))])
    heads = ["method", "epochs until as good as XBM", *(f"{name}, %" for name in names)]
    return f"Saved by XBM where the other stops as soon as it is as good on validation images.\n\n{table(heads, lines)}"


if __name__ == "__main__":
    with command("forty_percent"):
        main(tyro.cli(Config, description=__doc__))
