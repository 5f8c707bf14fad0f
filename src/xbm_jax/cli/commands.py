"""``xbm adapt``, ``xbm bank list`` and ``xbm bank show``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from rich.console import Console
from rich.table import Table

from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, Gaussian
from xbm_jax.data import load
from xbm_jax.errors import BankError
from xbm_jax.hardware import task_bits, task_cells_written
from xbm_jax.masks import Method, methods
from xbm_jax.models import calibrate, load_backbone, program
from xbm_jax.report import TrainingProgress
from xbm_jax.tasks import MaskBank, describe, load_chip, save_chip, store
from xbm_jax.training import TrainConfig, adapt, for_chip

if TYPE_CHECKING:
    from xbm_jax.cli import Adapt

__all__ = ["adapt_command", "bank_list", "bank_show"]

CALIBRATION_IMAGES = 256


def adapt_command(options: Adapt) -> None:
    """Learn a task on the bank's chip; the chip is programmed and saved when the bank is new."""
    console = Console()
    method = _method(options)
    config = TrainConfig(epochs=options.epochs, batch_size=options.batch_size)
    spec = CrossbarSpec(
        rows=options.rows,
        cell=Cell(bits=options.cell_bits),
        adc=Adc(bits=options.adc_bits),
        device=Gaussian(sigma=options.programming_sigma),
    )
    store.checked_directory(options.bank)
    backbone = load_backbone(options.model, options.weights)
    chip = program(backbone, spec, jax.random.key(options.seed))
    data = for_chip(chip, load(options.task, seed=options.seed, image_size=options.image_size))
    folder = options.bank / "chip"
    if store.exists(folder):
        saved = load_chip(folder)
        MaskBank.open(options.bank, chip)  # names what differs between the options and the bank's chip
        chip = saved
    elif not chip.calibrated:
        console.print(f"Measuring input scales and converter ranges on {CALIBRATION_IMAGES} training images.")
        chip = calibrate(chip, data.x_train[:CALIBRATION_IMAGES])
    bank = MaskBank.create(options.bank, chip)
    if not store.exists(folder):
        save_chip(chip, folder)
    name = options.name or data.name
    with TrainingProgress(console) as progress:
        bar = progress.task(f"{name} {method.name}")
        task = adapt(chip, data, method=method, key=jax.random.key(options.seed), config=config, report=bar.report)
    bank.put(name, task)
    bits = task_bits(chip, task)
    console.print(
        f"{name}: {task.meta['accuracy']:.1%} of {task.meta['images']['test']} test images "
        f"(validation {task.meta['val_accuracy']:.1%}); {bits.mask_bits:,} mask, {bits.weight_bits_stored:,} weight, "
        f"{bits.norm_bits:,} norm and {bits.head_bits:,} head bits; {task_cells_written(chip, task):,} cells written. "
        f"Stored in {options.bank}."
    )


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
            raise BankError("--task", task, "one of " + ", ".join(described["tasks"]))
        described["tasks"] = {task: described["tasks"][task]}
    print(json.dumps(described, indent=1))


def _method(options: Adapt) -> Method:
    chosen = {} if options.norms is None or options.method == "head_only" else {"norms": options.norms}
    return methods.by_name(options.method, **chosen)


def _title(card: dict) -> str:
    return f"{card['network']}, chip {card['identity'][:12]}, {card['specs'][0]['rows']} rows"
