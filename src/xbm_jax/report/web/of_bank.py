"""What a bank and its chip know: results, masks, learning curves, confusions; and what the chip does to images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from xbm_jax.banks import MaskBank, describe, load_bank, load_chip
from xbm_jax.data import Dataset, stratified_sample
from xbm_jax.errors import BankError, ModelError, XbmError
from xbm_jax.hardware import arrays_used, cost_summary, task_bits, task_cells_written
from xbm_jax.models import Chip
from xbm_jax.report.web.found import Confusion, Curve, Found, MaskMap
from xbm_jax.report.web.tables import number
from xbm_jax.tasks import Task, inspect, predict
from xbm_jax.tasks.watching import active_mask

__all__ = ["of_bank", "safely", "seen_by"]

_T = TypeVar("_T")
_MEASURED = ("accuracy", "val_accuracy", "best_epoch", "epochs", "seconds", "images_per_second")


def of_bank(where: str | Path, chip_at: Path | None = None) -> tuple[Found, MaskBank | None]:
    """What the tasks of a bank say, and the bank with its chip where that can be opened.

    A task that is damaged, or that was put by hand with less measured of it, is noted and shown as far as it goes.

    Raises:
        BankError: no bank there.
    """
    described, notes = describe(where), []
    bank = _opened(where, chip_at, notes)
    rows, curves, maps, confusions = [], [], [], []
    clips: dict[str, Any] = {}
    for name, task in described["tasks"].items():
        if "error" in task:
            notes.append(f"Task {name} is damaged: {task['error']}")
            continue
        meta = task["meta"]
        rows.append(safely(notes, name, lambda task=task, name=name: _row(name, task)) or {"task": name})
        curves += safely(notes, name, lambda meta=meta, name=name: _history(name, meta)) or []
        confusions += safely(notes, name, lambda meta=meta, name=name: _confusion(name, meta)) or []
        clips[name] = safely(notes, name, lambda meta=meta: dict(meta.get("adc_clip_rate") or {})) or {}
        if bank is not None:
            learned = safely(notes, name, lambda bank=bank, name=name: bank.get(name))
            if learned is not None:
                rows[-1] |= _counted(bank.chip, learned, notes, name)
                maps += _maps(bank.chip, name, learned)
    facts = [] if bank is None else [("The chip", _chip_in_words(bank.chip))]
    found = Found(f"Bank {where}", rows, curves, maps, confusions, clips=clips, facts=facts, notes=notes)
    return found, bank


def seen_by(bank: MaskBank, data: Dataset, count: int, key: jax.Array) -> Found:
    """An inspection of the chip on some of the data's test images, and what tasks learned on such data answer to them.

    Raises:
        DataError: images that the chip cannot read.
    """
    chosen = stratified_sample(data.y_test, min(count, len(data.y_test)), 0, keep_every_class=False)
    images, labels = data.x_test[chosen], data.y_test[chosen]
    confusions, notes = [], []
    for name in bank.names:
        if bank.meta(name).get("task") == data.name:
            answers = np.argmax(predict(bank.chip, bank.get(name), images, key=key), -1)
            confusions.append(Confusion.of(f"{name}, {len(labels)} test images", data.class_names, labels, answers))
    if not confusions:
        notes.append(f"No task of the bank was learned on {data.name}: it shows what the chip does, and no answers.")
    health = inspect(bank.chip, images, key=key)
    return Found("", confusions=confusions, health=health, notes=notes)


def safely(notes: list[str], name: str, read: Callable[[], _T]) -> _T | None:
    """What ``read`` gives; a file that says something else than it should is noted, and the rest is shown."""
    try:
        return read()
    except (XbmError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        notes.append(f"{name}: not all of it can be shown ({type(error).__name__}: {str(error)[:200]})")
        return None


def _opened(where: str | Path, chip_at: Path | None, notes: list[str]) -> MaskBank | None:
    try:
        return load_bank(where) if chip_at is None else MaskBank.open(where, load_chip(chip_at))
    except (BankError, ModelError) as error:
        notes.append(f"Without its chip a bank shows no masks, bits and energies ({error}).")
        return None


def _row(name: str, task: Mapping[str, Any]) -> dict[str, Any]:
    meta = task["meta"]
    row = {"task": name, "method": task["method"]["name"], "classes": task.get("classes")}
    if isinstance(meta.get("task"), str) and name == f"{meta['task']}.{row['method']}":
        row["task"] = meta["task"]
    row |= {key: meta[key] for key in _MEASURED if number(meta.get(key)) is not None}
    return row | {"stored bytes": task["bytes"]}


def _counted(chip: Chip, task: Task, notes: list[str], name: str) -> dict[str, Any]:
    """Bits, cells and, of tasks whose images have a known shape, energies."""
    bits = task_bits(chip, task)
    parts = ("mask_bits", "weight_bits_stored", "norm_bits", "head_bits")
    row: dict[str, Any] = {part: getattr(bits, part) for part in parts}
    row["cells_written"] = task_cells_written(chip, task)
    shape = task.meta.get("image_shape")
    if shape:
        images = np.zeros((1, *shape), np.uint8)
        costs = safely(notes, name, lambda: cost_summary(chip, task, images)._asdict())
        row |= costs or {}
    return row


def _maps(chip: Chip, name: str, task: Task) -> list[MaskMap]:
    """The masks of a task that gates columns; one that rewrites cells, or learns none, has no such picture."""
    if task.method.rule is None:
        return []
    layers = {path: active_mask(chip, task, path) for path in chip.tiles}
    return [MaskMap(name, layers)] if not all(on.all() for on in layers.values()) else []


def _history(name: str, meta: Mapping[str, Any]) -> list[Curve]:
    data, rows = str(meta.get("task") or name), meta.get("history") or []
    line = name.removeprefix(f"{data}.")
    quantities = dict.fromkeys(key for row in rows for key in row if key != "epoch")
    return [
        Curve(
            f"{data}: {quantity.replace('_', ' ')}", line, "epoch", [(row["epoch"] + 1, row[quantity]) for row in rows]
        )
        for quantity in quantities
    ]


def _confusion(name: str, meta: Mapping[str, Any]) -> list[Confusion]:
    if "confusion" not in meta:
        return []
    counts = np.array(meta["confusion"])
    classes = [str(c) for c in meta["class_names"]]
    if counts.shape != (len(classes),) * 2 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise BankError("meta.confusion.shape", counts.shape, "counts, of classes by classes")
    return [Confusion(name, classes, counts)]


def _chip_in_words(chip: Chip) -> str:
    specs = list(dict.fromkeys(tiles.plan.spec for tiles in chip.tiles.values()))
    kinds = "; ".join(
        f"{s.rows} x {s.cols} cells of {s.cell.bits} bits, {s.weight_bits}-bit weights, "
        f"{'ideal converters' if s.adc.bits is None else f'{s.adc.bits}-bit converters'}, {s.device}"
        for s in specs[:4]
    )
    return f"{chip.network.name} on {arrays_used(chip):,} arrays, {len(chip.tiles)} layers: {kinds}."
