"""One result row per task and method, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xbm_jax.errors import DataError
from xbm_jax.hardware import cost_summary, task_bits, task_cells_written
from xbm_jax.models import Chip
from xbm_jax.storage.files import replace_json
from xbm_jax.tasks import Task, compact

__all__ = ["Row", "read_results", "row_of", "write_results"]


@dataclass(frozen=True)
class Row:
    """What learning one task with one method gave and cost.

    Args:
        task: name of the task.
        method: name of the method.
        accuracy: share of test images predicted as labelled, in [0, 1].
        val_accuracy: the same on the validation split, which chose the epoch.
        mask_bits: stored mask bits.
        norm_bits: stored bits of norm parameters and running statistics.
        head_bits: stored bits of the classifier.
        cells_written: physical cells rewritten against the programmed backbone.
        rows: rows that are read at once, an array's or ``CrossbarSpec.active_rows``: those under one mask bit.
        seconds: wall time of learning.
        images_per_second: training images per second, compilation left out.
        seed: what every draw came from.
        weight_bits_stored: bits of whole weights, for methods that keep them.
        technology: whose constants the energies are by; empty where none was counted.
        inference_joules: of one example, every input at full scale (:func:`xbm_jax.hardware.cost_summary`).
        adaption_joules: of learning the task.
        switch_joules: of going from the backbone to the task.

    Raises:
        DataError: an accuracy outside [0, 1], or a count or a time that is negative or no number.
    """

    task: str
    method: str
    accuracy: float
    val_accuracy: float
    mask_bits: int
    norm_bits: int
    head_bits: int
    cells_written: int
    rows: int
    seconds: float
    images_per_second: float
    seed: int
    weight_bits_stored: int = 0
    technology: str = ""
    inference_joules: float = 0.0
    adaption_joules: float = 0.0
    switch_joules: float = 0.0

    def __post_init__(self) -> None:
        for name, number in _CHECKS.items():
            object.__setattr__(self, name, number(f"Row.{name}", getattr(self, name)))

    @property
    def stored_bits(self) -> int:
        """Everything that is kept for the task: masks, whole weights, norms and head."""
        return self.mask_bits + self.weight_bits_stored + self.norm_bits + self.head_bits

    def to_json(self) -> dict[str, Any]:
        """Plain values by field name."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """The row of :meth:`to_json`.

        Raises:
            DataError: fields missing or unknown, all listed, or a value that no row may hold.
        """
        fields = {f.name: f.default is dataclasses.MISSING for f in dataclasses.fields(cls)}
        missing = [name for name, needed in fields.items() if needed and name not in values]
        unknown = [name for name in values if name not in fields]
        if missing or unknown:
            found = f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
            raise DataError("row", found, "the fields " + ", ".join(fields))
        return cls(**values)


def row_of(chip: Chip, task: Task, *, name: str, seed: int, inputs: Any = None) -> Row:
    """The row of a task that :func:`~xbm_jax.training.adapt` learned on ``chip``.

    ``rows`` is that of the tallest row tiles, where a chip has several kinds. ``inputs``: examples, for their shape;
    energies are counted where they are given.
    """
    bits = task_bits(chip, task)
    costs = {} if inputs is None else cost_summary(chip, compact(chip, task), inputs)._asdict()
    return Row(
        task=name,
        method=task.method.name,
        accuracy=task.meta["accuracy"],
        val_accuracy=task.meta["val_accuracy"],
        mask_bits=bits.mask_bits,
        norm_bits=bits.norm_bits,
        head_bits=bits.head_bits,
        cells_written=task_cells_written(chip, task),
        rows=max(tiles.plan.spec.tile_height for tiles in chip.tiles.values()),
        seconds=task.meta["seconds"],
        images_per_second=task.meta["images_per_second"],
        seed=seed,
        weight_bits_stored=bits.weight_bits_stored,
        **costs,
    )


def write_results(path: str | Path, rows: Sequence[Row], context: Mapping[str, Any]) -> None:
    """Write ``{"context": ..., "rows": [...]}`` as JSON, the old file or the new one being there at any moment.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    content = {"context": dict(context), "rows": [row.to_json() for row in rows]}
    replace_json(path, content, indent=2)


def read_results(path: str | Path) -> tuple[list[Row], dict[str, Any]]:
    """Rows and context of :func:`write_results`.

    Raises:
        DataError: no such file, or one that is no results file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows, context = content["rows"], dict(content["context"])
        return [Row.from_json(row) for row in rows], context
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError("results", str(path), f"a whole results.json ({type(error).__name__}: {error})") from error


def _text(field: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise DataError(field, value, "a name")
    return value


def _text_or_none(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(field, value, "a technology's name, or an empty text")
    return value


def _share(field: str, value: Any) -> float:
    number = _amount(field, value)
    if number > 1:
        raise DataError(field, value, "a share in [0, 1]")
    return number


def _amount(field: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise DataError(field, value, "a finite number, at least 0")
    return number


def _integer(field: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise DataError(field, value, "an integer") from None


def _count(field: str, value: Any) -> int:
    number = _integer(field, value)
    if number < 0:
        raise DataError(field, value, "a count, at least 0")
    return number


# NumPy's and JAX's scalars become Python's on the way, so that a row is always plain JSON.
_CHECKS = {
    **dict.fromkeys(("task", "method"), _text),
    **dict.fromkeys(("accuracy", "val_accuracy"), _share),
    **dict.fromkeys(("mask_bits", "norm_bits", "head_bits", "weight_bits_stored", "cells_written", "rows"), _count),
    **dict.fromkeys(("seconds", "images_per_second"), _amount),
    **dict.fromkeys(("inference_joules", "adaption_joules", "switch_joules"), _amount),
    "technology": _text_or_none,
    "seed": _integer,
}
