"""``xbm adapt`` and ``xbm inspect``."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import jax

from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.cli.console import Output, complain, say, writable
from xbm_jax.cli.options import Adapt, Inspect
from xbm_jax.cli.processes import in_turn, joined, leads
from xbm_jax.cli.resume import carried_on, kept_log, outlets
from xbm_jax.cli.settle import asked_of_data, chip_for_bank, fitted, names_in, placement, read_key, settled
from xbm_jax.cli.spec_file import read_spec_file
from xbm_jax.crossbar import CrossbarSpec, Gaussian, spec_by_name
from xbm_jax.crossbar.primitives.platforms import here
from xbm_jax.data import load, stratified_sample
from xbm_jax.errors import BankError, DataError
from xbm_jax.examples import take
from xbm_jax.hardware import task_bits, task_cells_written
from xbm_jax.masks import Method, methods
from xbm_jax.models import Chip, LayerSpecs, load_backbone, program
from xbm_jax.report import TrainingProgress, all_of, draw_inspection, print_inspection
from xbm_jax.storage.files import replace_json
from xbm_jax.streams import Command, stream
from xbm_jax.tasks import Task, inspect
from xbm_jax.tasks.kept import measured_as_kept
from xbm_jax.training import Recipe, adapt
from xbm_jax.training.run import Run

__all__ = ["adapt_command", "inspect_command"]

_INSPECTION = ("inspection.json", "inspection.png")


def adapt_command(options: Adapt) -> int:
    """Learn a task on the bank's chip; 1 where it had to be stored under another name, else 0.

    All that is wrong is said before anything is written; chip and bank are settled before the first step, so that
    what is stored is what another ``xbm adapt`` into this bank serves.
    """
    mesh = joined(options)
    console = Output(quiet=not leads())
    method = _method(options)
    config = Recipe(epochs=options.epochs, batch_size=options.batch_size)
    spec, rules = _specs(options)
    writable("--bank", options.bank)
    _check_name(options, options.name)
    backbone = load_backbone(options.model, options.weights, preprocess=options.preprocess)
    data = load(options.task, seed=options.seed, stream=options.stream, **asked_of_data(options))
    name = options.name or _name_in_bank(data.name)
    _check_name(options, name)
    for part in ("chip", f"tasks/{name}"):
        writable("--bank", options.bank / part)
    if options.profile is not None:
        writable("--profile", options.profile)
    key = jax.random.key(options.seed)
    programmed = program(backbone, spec, key, rules=rules)
    say(console, placement(programmed))
    data, task_key = fitted(programmed, data), stream(key, Command.TASK)
    chip = chip_for_bank(console, options.bank, programmed, data)
    Run(chip, data, method, config, task_key).check()  # raises what learning would, before anything is written
    known = chip
    chip = in_turn(lambda: settled(options.bank, known, programmed))
    with here(), carried_on(options.bank, name, "--restart, to begin it anew", options.restart) as save:
        with TrainingProgress(console) as progress, outlets(options, name) as others:
            report = all_of(progress.task(f"{name} {method.name}").report, *others)
            task = adapt(chip, data, method=method, key=task_key, config=config, report=report, save=save, mesh=mesh)
        if not leads():
            return 0
        if options.compact:  # what is reported is what another command will answer from the bank
            task = measured_as_kept(chip, task, data.x_test, data.y_test, key=stream(key, Command.KEPT))
        stored_as = name if options.replace else _free_name(options.bank, name)
        MaskBank.open(options.bank, chip).put(stored_as, task, compact=options.compact)
        if options.log == "jsonl":
            kept_log(save, options.bank, stored_as)
    say(console, _summary(stored_as, chip, task, options.compact) + f" Stored in {options.bank}.")
    if stored_as == name:
        return 0
    complain(f"--name = {name!r}: was taken while this task was learned; it is stored as {stored_as}")
    return 1


@here()
def inspect_command(options: Inspect) -> None:
    """Print what a saved chip's layers do to a task's test images, and write it if a folder is named."""
    if options.images < 1:
        raise DataError("--images", options.images, "at least 1")
    chip = load_chip(options.chip)
    data = fitted(chip, load(options.task, seed=options.seed, **asked_of_data(options)))
    if options.out is not None:
        for file in _INSPECTION:
            writable("--out", options.out, file)
    count = min(options.images, len(data.y_test))
    images = take(data.x_test, stratified_sample(data.y_test, count, 0, keep_every_class=False))
    inspection = inspect(chip, images, key=read_key(options.seed))
    console = Output()
    print_inspection(inspection, console)
    if options.out is not None:
        replace_json(options.out / _INSPECTION[0], inspection.to_json())
        draw_inspection(inspection, options.out / _INSPECTION[1])
        say(console, f"Written to {options.out}: {' and '.join(_INSPECTION)}.")


def _method(options: Adapt) -> Method:
    chosen = {} if options.norms is None or options.method == "head_only" else {"norms": options.norms}
    return methods.by_name(options.method, **chosen)


def _specs(options: Adapt) -> tuple[CrossbarSpec, LayerSpecs]:
    """The chip's spec and its rules; options change every layer's, whatever a file says of it."""
    spec, rules = spec_by_name(options.chip), {}
    if options.spec_file is not None:
        spec, rules = read_spec_file(options.spec_file, spec)
    return _optioned(spec, options), {where: own and _optioned(own, options) for where, own in rules.items()}


def _optioned(spec: CrossbarSpec, options: Adapt) -> CrossbarSpec:

    def changed(part: Any, **given: Any) -> Any:
        """A part of the spec with what the command line names."""
        return dataclasses.replace(part, **{name: value for name, value in given.items() if value is not None})

    sigma = options.programming_sigma
    return changed(
        spec,
        rows=options.rows,
        active_rows=options.active_rows,
        cell=changed(spec.cell, bits=options.cell_bits, on_off=options.on_off),
        adc=changed(spec.adc, bits=options.adc_bits),
        device=None if sigma is None else Gaussian(sigma=sigma),
    )


def _name_in_bank(name: str) -> str:
    """A name made one that a bank takes."""
    return re.sub(r"[^A-Za-z0-9._@+-]+", "_", name).lstrip("._@+-") or "task"


def _check_name(options: Adapt, name: str | None) -> None:
    """See that the bank takes a task of that name, if there is one yet.

    Raises:
        BankError: not a name, or one that is taken.
    """
    if name is None:
        return
    allowed = _name_in_bank(name)
    if name != allowed:
        raise BankError("--name", name, f"letters, digits and . _ @ + - , as in {allowed}")
    names = names_in(options.bank)
    if name in names and not options.replace:
        raise BankError("--name", name, f"a name that is free, or --replace; the bank has {', '.join(names)}")


def _free_name(bank: Path, name: str) -> str:
    """The name, or one like it where another process has taken it since."""
    names, number = names_in(bank), 2
    while name in names:
        name = re.sub(r"(\+\d+)?$", f"+{number}", name, count=1)
        number += 1
    return name


def _summary(name: str, chip: Chip, task: Task, compact: bool) -> str:
    bits = task_bits(chip, task, compact=compact)
    return (
        f"{name}: {task.meta['accuracy']:.1%} of {task.meta['images']['test']} test images "
        f"(validation {task.meta['val_accuracy']:.1%}); {bits.mask_bits:,} mask, {bits.weight_bits_stored:,} weight, "
        f"{bits.norm_bits:,} norm and {bits.head_bits:,} head bits; {task_cells_written(chip, task):,} cells written."
    )
