"""``xbm cost``: what a saved chip and the tasks of a bank cost, by named technologies."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli.console import Output, say, writable
from xbm_jax.cli.options import Cost
from xbm_jax.cli.settle import asked_of_data, fitted
from xbm_jax.data import load, stratified_sample
from xbm_jax.errors import BankError, DataError
from xbm_jax.examples import take
from xbm_jax.hardware import (
    Technology,
    Training,
    Workload,
    cost,
    explain,
    load_technology,
    measure_activity,
    swings,
    workload,
)
from xbm_jax.models import Chip
from xbm_jax.report import CostRow, cost_csv, cost_json, print_costs, run_context
from xbm_jax.report.cost_figures import draw_accuracy_against_energy, draw_energy, draw_swings
from xbm_jax.report.floor_plan import draw_floor_plan
from xbm_jax.storage.files import replace_file, replace_json
from xbm_jax.streams import Command, stream
from xbm_jax.tasks import Task, source_task

__all__ = ["cost_command"]

_FILES = ("cost.json", "cost.csv", "energy.png", "accuracy_energy.png", "floor_plan.png", "assumptions.png")
SOURCE = "source task"


def cost_command(options: Cost) -> None:
    """Print a table a technology, or a layer's terms; write everything if a folder is named."""
    technologies = [load_technology(name) for name in options.tech]
    if options.out is not None:
        for file in _FILES:
            writable("--out", options.out, file)
    chip = load_chip(options.chip)
    tasks = _tasks(options, chip)
    counted = _counted(options, chip)
    loads = {name: counted.replace(training=_training(options, task)) for name, task in tasks.items()}
    console = Output()
    if options.explain is not None:
        _explain(console, options.explain, chip, tasks, technologies, loads)
        return
    rows = [
        CostRow(name, task.method.name, task.meta.get("accuracy"), cost(chip, task, tech, loads[name]))
        for tech in technologies
        for name, task in tasks.items()
    ]
    print_costs(rows, console)
    say(console, _assumed(options))
    if options.out is not None:
        _write(options, chip, tasks, technologies, loads, rows)
        say(console, f"Written to {options.out}: {', '.join(f for f in _FILES if (options.out / f).exists())}.")


def _tasks(options: Cost, chip: Chip) -> dict[str, Task]:
    """The bank's tasks, or the source task where no bank is named."""
    if options.bank is None:
        return {SOURCE: source_task(chip)}
    bank = MaskBank.open(options.bank, chip)
    names = list(options.task) or list(bank.names)
    if unknown := [name for name in names if name not in bank.names]:
        raise BankError("--task", ", ".join(unknown), "some of " + (", ".join(bank.names) or "none: the bank is empty"))
    if not names:
        raise BankError("--bank", str(options.bank), "a bank with a task in it")
    return {name: bank.get(name) for name in names}


def _counted(options: Cost, chip: Chip) -> Workload:
    """The chip's workload: inputs measured on images where some are named, else all at full scale."""
    size, off = options.image_size or chip.network.image_size, options.off_lines
    if options.images is not None:
        data = fitted(chip, load(options.images, seed=options.seed, **asked_of_data(options)))
        chosen = stratified_sample(data.y_test, min(128, len(data.y_test)), 0, keep_every_class=False)
        key = stream(jax.random.key(options.seed), Command.COST)
        activity = measure_activity(chip, take(data.x_test, chosen), key=key)
        first = take(data.x_test, slice(1))
        return workload(chip, first, activity=activity, batch=options.batch, copies=options.copies, off_lines=off)
    if chip.network.preprocess is None or size is None:
        raise DataError("--images", None, "images or other inputs of the network: it does not say what size they have")
    shape = (1, size, size, len(chip.network.preprocess.mean))
    one = jax.ShapeDtypeStruct(shape, np.uint8)
    return workload(chip, one, batch=options.batch, copies=options.copies, off_lines=off)


def _training(options: Cost, task: Task) -> Training:
    """As the task itself was learned, with the command line's choices."""
    meta: Any = task.meta
    if "epochs" not in meta:
        return Training(schedule=options.schedule, backward=options.backward)
    images = meta["images"]["train"]
    sizes = {"images": images, "epochs": meta["epochs"], "batch_size": meta["batch_size"]}
    return Training(**sizes, schedule=options.schedule, backward=options.backward)


def _explain(
    console: Output,
    layer: str,
    chip: Chip,
    tasks: dict[str, Task],
    technologies: list[Technology],
    loads: dict[str, Workload],
) -> None:
    for tech in technologies:
        for name, task in tasks.items():
            terms = explain(chip, task, tech, loads[name], layer)
            say(console, f"{layer}, {name}, {tech.name}: one example, {sum(t.joules or 0 for t in terms):.4g} J")
            for term in terms:
                say(console, f"  {str(term).replace(chr(10), chr(10) + '  ')}")


def _assumed(options: Cost) -> str:
    inputs = f"inputs measured on {options.images}" if options.images else "every input at full scale (an upper bound)"
    return (
        f"{inputs}; lines that are off {options.off_lines}; rewriting methods write at {options.schedule}; backward "
        f"products on {options.backward}; copies {options.copies}, batch {options.batch}"
    )


def _write(
    options: Cost,
    chip: Chip,
    tasks: dict[str, Task],
    technologies: list[Technology],
    loads: dict[str, Workload],
    rows: list[CostRow],
) -> None:
    assert options.out is not None
    sources = {tech.name: dict(tech.sources) for tech in technologies}
    asked = {name: value for name, value in vars(options).items() if name not in ("out", "bank", "chip")}
    context = run_context(asked, options.seed)
    replace_json(options.out / "cost.json", {"context": context, "sources": sources, "rows": cost_json(rows)})
    replace_file(options.out / "cost.csv", cost_csv(rows))
    draw_energy(rows, options.out / "energy.png")
    if any(row.accuracy is not None for row in rows):
        draw_accuracy_against_energy(rows, options.out / "accuracy_energy.png")
    # The task that needs least is the one that has something to show: which arrays rest.
    name = min(rows[: len(tasks)], key=lambda row: float(row.report.inference_joules)).task
    draw_floor_plan(chip, options.out / "floor_plan.png", tasks[name])
    tech = technologies[0]
    found = swings(chip, tasks[name], tech, loads[name], lambda report: 1e6 * report.inference_joules)
    base = float(1e6 * cost(chip, tasks[name], tech, loads[name]).inference_joules)
    draw_swings(found, base, options.out / "assumptions.png", unit=f"{name}, {tech.name}: one example, µJ")
