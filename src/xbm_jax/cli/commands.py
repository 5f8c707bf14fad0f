"""``xbm adapt``, ``xbm inspect``, ``xbm bank list`` and ``xbm bank show``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
from rich.console import Console
from rich.table import Table

from xbm_jax.cli.console import say, writable
from xbm_jax.cli.interrupt import heeding
from xbm_jax.cli.options import Adapt, Inspect
from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, Gaussian
from xbm_jax.data import Dataset, calibration_images, load, stratified_sample
from xbm_jax.errors import BankError, DataError
from xbm_jax.hardware import task_bits, task_cells_written
from xbm_jax.masks import Method, methods
from xbm_jax.models import Chip, calibrate, load_backbone, program
from xbm_jax.report import TrainingProgress, draw_inspection, print_inspection
from xbm_jax.tasks import ChipCard, MaskBank, Task, describe, inspect, load_chip, save_chip, store
from xbm_jax.tasks.files import replace_file
from xbm_jax.training import TrainConfig, adapt, for_chip

__all__ = ["adapt_command", "bank_list", "bank_show", "inspect_command"]


def adapt_command(options: Adapt) -> None:
    """Learn a task on the bank's chip; chip and bank are saved with the first task. Whatever is wrong is said first."""
    console = Console()
    method = _method(options)
    config = TrainConfig(epochs=options.epochs, batch_size=options.batch_size)
    spec = _spec(options)
    backbone = load_backbone(options.model, options.weights)
    data = load(options.task, seed=options.seed, image_size=options.image_size)
    name = _task_name(options.name, data.name)
    for part in ("tasks", "chip"):
        writable("--bank", options.bank / part)
    chip = program(backbone, spec, jax.random.key(options.seed))
    data = for_chip(chip, data)
    chip = _chip_of_bank(console, options.bank, chip, data)
    with TrainingProgress(console) as progress:
        bar = progress.task(f"{name} {method.name}")
        task = adapt(
            chip, data, method=method, key=jax.random.key(options.seed), config=config, report=heeding(bar.report)
        )
    bank = MaskBank.create(options.bank, chip)
    if not store.exists(options.bank / "chip"):
        save_chip(chip, options.bank / "chip")
    bank.put(name, task)
    say(console, _summary(name, chip, task) + f" Stored in {options.bank}.")


def inspect_command(options: Inspect) -> None:
    """Print what a saved chip's layers do to a task's test images, and write it if a folder is named."""
    if options.images < 1:
        raise DataError("--images", options.images, "at least 1")
    chip = load_chip(options.chip)
    data = for_chip(chip, load(options.task, seed=options.seed, image_size=options.image_size))
    if options.out is not None:
        writable("--out", options.out)
    count = min(options.images, len(data.y_test))
    images = data.x_test[stratified_sample(data.y_test, count, 0, keep_every_class=False)]
    inspection = inspect(chip, images, key=jax.random.key(options.seed))
    console = Console()
    print_inspection(inspection, console)
    if options.out is not None:
        text = json.dumps(inspection.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        replace_file(options.out / "inspection.json", text + "\n")
        draw_inspection(inspection, options.out / "inspection.png")
        say(console, f"Written to {options.out}: inspection.json and inspection.png.")


def bank_list(folder: Path) -> None:
    """Print a bank's tasks, a line each."""
    described = describe(folder)
    table = Table("task", "method", "classes", "test accuracy", "norms", title=_title(described["chip"]))
    for name, task in described["tasks"].items():
        meta = task["meta"]
        accuracy = f"{meta['accuracy']:.1%}" if "accuracy" in meta else "-"
        table.add_row(name, task["method"]["name"], str(task["classes"]), accuracy, task["method"]["norms"])
    Console().print(table)


def bank_show(folder: Path, task: str | None) -> None:
    """Print a bank's chip and what was measured of its tasks (of one task, if named) as JSON."""
    described = describe(folder)
    if task is not None:
        if task not in described["tasks"]:
            raise BankError("--task", task, "one of " + (", ".join(described["tasks"]) or "none: the bank is empty"))
        described["tasks"] = {task: described["tasks"][task]}
    print(json.dumps(described, indent=1))


def _method(options: Adapt) -> Method:
    chosen = {} if options.norms is None or options.method == "head_only" else {"norms": options.norms}
    return methods.by_name(options.method, **chosen)


def _spec(options: Adapt) -> CrossbarSpec:
    return CrossbarSpec(
        rows=options.rows,
        cell=Cell(bits=options.cell_bits, on_off=options.on_off),
        adc=Adc(bits=options.adc_bits),
        device=Gaussian(sigma=options.programming_sigma),
    )


def _task_name(given: str | None, of_data: str) -> str:
    """The task's name in the bank; the data's own name is made one that a bank takes, a given one must be."""
    allowed = re.sub(r"[^A-Za-z0-9._@+-]+", "_", given or of_data).lstrip("._@+-") or "task"
    if given is not None and given != allowed:
        raise BankError("--name", given, f"letters, digits and . _ @ + - , as in {allowed}")
    return allowed


def _chip_of_bank(console: Console, folder: Path, chip: Chip, data: Dataset) -> Chip:
    """The bank's own chip, which must be the one that the options describe; for a new bank that one, calibrated."""
    if (folder / "bank.json").exists():
        try:
            MaskBank.open(folder, chip)
        except BankError as error:
            allowed = f"a new folder, or the --model, --weights, --rows, --seed, ... that it was made with ({error})"
            raise BankError("--bank", str(folder), allowed) from error
        if store.exists(folder / "chip"):
            return load_chip(folder / "chip")
    if chip.calibrated:
        return chip
    images = calibration_images(data)
    say(console, f"Measuring input scales and converter ranges on {len(images)} training images.")
    return calibrate(chip, images)


def _summary(name: str, chip: Chip, task: Task) -> str:
    bits = task_bits(chip, task)
    return (
        f"{name}: {task.meta['accuracy']:.1%} of {task.meta['images']['test']} test images "
        f"(validation {task.meta['val_accuracy']:.1%}); {bits.mask_bits:,} mask, {bits.weight_bits_stored:,} weight, "
        f"{bits.norm_bits:,} norm and {bits.head_bits:,} head bits; {task_cells_written(chip, task):,} cells written."
    )


def _title(card: dict) -> str:
    chip = ChipCard.from_json(card)
    rows = " and ".join(str(count) for count in sorted({json.loads(spec)["rows"] for spec in chip.specs.values()}))
    return f"{chip.network}, chip {chip.identity[:12]}, {rows} rows"
