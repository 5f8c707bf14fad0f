"""The user's own device: measured rows of a CSV file (:func:`from_csv`), or functions (:class:`FunctionDevice`)."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from xbm_jax.crossbar.devices.ages import check_time
from xbm_jax.crossbar.devices.fitted import relax
from xbm_jax.crossbar.devices.laws import Device
from xbm_jax.crossbar.primitives import draws
from xbm_jax.crossbar.validate import check_bool, check_number
from xbm_jax.errors import SpecError

__all__ = ["FunctionDevice", "TableDevice", "from_csv"]

_SMALLEST = 1e-30
"""Siemens that float32 divides by with room to spare."""


@dataclass(frozen=True)
class TableDevice(Device):
    """Mean and standard deviation of a cell by target conductance and time, linear between the given points.

        program: g_0 = max(mean(g_target, t_first) + sigma(g_target, t_first) eps, 0)
        drift:   the same at time t, each cell keeping its error (:func:`~xbm_jax.crossbar.devices.fitted.relax`)

    Both are linear in the target and in the time; outside the table the nearest point is held (a target below the
    lowest is written as the lowest). Immutable and hashable. All conductances in siemens.

    Args:
        g_siemens: targets, length G >= 2, rising, at least 0.
        mean_siemens: mean of what is written, [T][G], at least 0.
        sigma_siemens: its standard deviation, [T][G], at least 0.
        times_seconds: since programming, length T, rising, at least 0; the first stands for "right after".
        rescale: whether the table's highest target stands for g_max (mean and sigma scaled along), or conductances are
            absolute and a g_max beyond the table is refused.
    """

    g_siemens: tuple[float, ...]
    mean_siemens: tuple[tuple[float, ...], ...]
    sigma_siemens: tuple[tuple[float, ...], ...]
    times_seconds: tuple[float, ...] = (0.0,)
    rescale: bool = False

    def __post_init__(self) -> None:
        check_bool("TableDevice.rescale", self.rescale)
        for name, shortest in (("g_siemens", 2), ("times_seconds", 1)):
            object.__setattr__(self, name, _rising(f"TableDevice.{name}", getattr(self, name), shortest))
        if self.g_siemens[-1] < _SMALLEST:
            raise SpecError(
                "TableDevice.g_siemens", self.g_siemens, f"a highest conductance of at least {_SMALLEST:g} S"
            )
        for name in ("mean_siemens", "sigma_siemens"):
            rows = getattr(self, name)
            if not isinstance(rows, tuple) or len(rows) != len(self.times_seconds):
                raise SpecError(f"TableDevice.{name}", rows, f"one tuple for each of {len(self.times_seconds)} times")
            rows = tuple(_entries(f"TableDevice.{name}[{i}]", row) for i, row in enumerate(rows))
            for i, row in enumerate(rows):
                if len(row) != len(self.g_siemens):
                    raise SpecError(f"TableDevice.{name}[{i}]", row, f"{len(self.g_siemens)} numbers, as g_siemens")
            object.__setattr__(self, name, rows)

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        """Conductances right after writing ``target``."""
        mean, sigma = self.moments(target, g_max, self.times_seconds[0])
        return jnp.maximum(mean + sigma * draws.normal(key, target.shape, target.dtype), 0.0)

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        """Conductances ``t_seconds`` after programming."""
        t = check_time(t_seconds, g.dtype)
        if len(self.times_seconds) == 1:
            return g
        mean_0, sigma_0 = self.moments(target, g_max, self.times_seconds[0])
        shift = self._interpolate(_since_first(self.mean_siemens), target, g_max, t)
        growth = self._interpolate(_since_first(self.sigma_siemens), target, g_max, t)
        return relax(g, mean_0, sigma_0, shift, growth, draws.normal(key, target.shape, target.dtype))

    def moments(self, target: jax.Array, g_max: float, t_seconds: jax.Array | float) -> tuple[jax.Array, jax.Array]:
        """Mean and standard deviation of cells asked for ``target``, ``t_seconds`` after programming; siemens."""
        t = check_time(t_seconds, target.dtype)
        return (
            self._interpolate(self.mean_siemens, target, g_max, t),
            self._interpolate(self.sigma_siemens, target, g_max, t),
        )

    def _interpolate(
        self, table: tuple[tuple[float, ...], ...], target: jax.Array, g_max: float, t: jax.Array
    ) -> jax.Array:
        dtype, scale = target.dtype, self._scale(g_max)
        times = jnp.asarray(self.times_seconds, dtype)
        row = jax.vmap(lambda column: jnp.interp(t, times, column), in_axes=1)(jnp.asarray(table, dtype))
        # In shares of the table's range: jnp.interp takes distances near the smallest floats for none.
        top = self.g_siemens[-1]
        return scale * jnp.interp(target / (scale * top), jnp.asarray([g / top for g in self.g_siemens], dtype), row)

    def _scale(self, g_max: float) -> float:
        top = self.g_siemens[-1]
        if self.rescale:
            return g_max / top
        if g_max > top * (1.0 + 1e-6):
            raise SpecError("g_max", g_max, f"at most {top:g} S, the table's highest g_siemens, or rescale=True")
        return 1.0


@dataclass(frozen=True)
class FunctionDevice(Device):
    """A device given by functions over conductances in siemens; those left out do nothing.

        program: g_0 = max(program_mean(g_target, g_max) + program_sigma(g_target, g_max) eps, 0)

    Args:
        program_sigma: ``(target, g_max) -> sigma`` of the programming error.
        program_mean: ``(target, g_max) -> mean`` of what is written; default: the target.
        drifted: ``(g, target, g_max, t_seconds, key) -> g_t``; at ``t_seconds = 0`` it should give ``g``.
        reading_sigma: ``(g, g_max, t_seconds) -> sigma`` of one read.

    The functions must be pure and traceable by JAX. Raises SpecError for what cannot be called.
    """

    program_sigma: Callable[[jax.Array, float], jax.Array] | None = None
    program_mean: Callable[[jax.Array, float], jax.Array] | None = None
    drifted: Callable[[jax.Array, jax.Array, float, jax.Array | float, jax.Array], jax.Array] | None = None
    reading_sigma: Callable[[jax.Array, float, jax.Array | float], jax.Array] | None = None

    def __post_init__(self) -> None:
        for name in ("program_sigma", "program_mean", "drifted", "reading_sigma"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise SpecError(f"FunctionDevice.{name}", function, "a function, or None")

    def program(self, target: jax.Array, g_max: float, key: jax.Array) -> jax.Array:
        """Conductances right after writing ``target``."""
        mean = target if self.program_mean is None else self.program_mean(target, g_max)
        if self.program_sigma is None:
            return jnp.maximum(mean, 0.0)
        sigma = self.program_sigma(target, g_max)
        return jnp.maximum(mean + sigma * draws.normal(key, target.shape, target.dtype), 0.0)

    def drift(
        self, g: jax.Array, target: jax.Array, g_max: float, t_seconds: jax.Array | float, key: jax.Array
    ) -> jax.Array:
        """Conductances ``t_seconds`` after programming, not below zero."""
        return g if self.drifted is None else jnp.maximum(self.drifted(g, target, g_max, t_seconds, key), 0.0)

    def read_sigma(
        self, g: jax.Array, g_max: float, t_seconds: jax.Array | float, programmed: jax.Array | None = None
    ) -> jax.Array | None:
        """Standard deviation of one read, siemens, or ``None``."""
        del programmed
        return None if self.reading_sigma is None else self.reading_sigma(g, g_max, t_seconds)


class _Row(NamedTuple):
    line: int
    at: float  # g_siemens or level
    mean: float
    sigma: float
    time: float


def from_csv(path: str | PathLike[str]) -> TableDevice:
    """A device from a CSV file with a header and these columns, in any order.

        g_siemens or level,  mean,  sigma  [, time_seconds]

    ``mean`` and ``sigma`` in siemens. Rows rise in time and, within a time, in conductance or level; every time has the
    same ones. With ``g_siemens`` conductances are absolute. With ``level`` (0, 1, 2, ... without a gap) the targets lie
    evenly between the first means of the lowest and the highest level, and the highest stands for g_max: give the
    cell the on/off ratio of those two means.

    Raises SpecError that names the file's line and the column: a missing or unknown column, no rows, a field that is
    empty, not a number, infinite or negative, rows out of order, twice or missing.
    """
    kind, rows = _read(Path(path))
    blocks = _blocks(rows, kind)
    at = tuple(row.at for row in blocks[0])
    mean = tuple(tuple(row.mean for row in block) for block in blocks)
    sigma = tuple(tuple(row.sigma for row in block) for block in blocks)
    times = tuple(block[0].time for block in blocks)
    if kind == "g_siemens":
        return TableDevice(at, mean, sigma, times)
    low, high = mean[0][0], mean[0][-1]
    if not high > low:
        raise SpecError(f"line {blocks[0][-1].line}, column 'mean'", high, f"above that of level 0, {low:g}")
    targets = tuple(low + level / at[-1] * (high - low) for level in at)
    return TableDevice(targets, mean, sigma, times, rescale=True)


def _read(path: Path) -> tuple[str, list[_Row]]:
    """The first column's kind and the rows, each number checked on its own."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, skipinitialspace=True, strict=True)
            lines.fieldnames = [name.strip() for name in lines.fieldnames or []]
            kind = _check_header(lines.fieldnames)
            rows = [_parse(fields, lines.line_num, kind) for fields in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SpecError("from_csv.path", str(path), f"a readable CSV file ({error})") from error
    if not rows:
        raise SpecError("from_csv.path", str(path), f"at least two rows of {kind}, mean, sigma")
    return kind, rows


def _check_header(names: Sequence[str]) -> str:
    kinds = [name for name in ("g_siemens", "level") if name in names]
    allowed = "the columns g_siemens or level (one of them), mean, sigma and, if wanted, time_seconds; each once"
    if len(kinds) != 1:
        raise SpecError("line 1, column 'g_siemens' or 'level'", list(names), allowed)
    for name in ("mean", "sigma"):
        if name not in names:
            raise SpecError(f"line 1, column '{name}'", names, allowed)
    for i, name in enumerate(names):
        if name not in (kinds[0], "mean", "sigma", "time_seconds") or name in names[:i]:
            raise SpecError(f"line 1, column '{name}'", names, allowed)
    return kinds[0]


def _parse(fields: dict[Any, Any], line: int, kind: str) -> _Row:
    if None in fields:
        raise SpecError(f"line {line}, column {len(fields)}", fields[None], "no field beyond the header's columns")

    def number(column: str) -> float:
        text = fields[column]
        try:
            value = float(text)
        except (TypeError, ValueError):
            value = math.nan
        if not (math.isfinite(value) and value >= 0.0):
            raise SpecError(f"line {line}, column '{column}'", text, "a finite number, at least 0")
        return value

    time = number("time_seconds") if "time_seconds" in fields else 0.0
    return _Row(line, number(kind), number("mean"), number("sigma"), time)


def _blocks(rows: list[_Row], kind: str) -> list[list[_Row]]:
    """The rows of each time, checked to rise and to be complete."""
    blocks: list[list[_Row]] = []
    for row in rows:
        if not blocks or row.time > blocks[-1][-1].time:
            blocks.append([])
        elif row.time < blocks[-1][-1].time:
            raise SpecError(f"line {row.line}, column 'time_seconds'", row.time, "rows sorted by time")
        block = blocks[-1]
        if block and not row.at > block[-1].at:
            raise SpecError(
                f"line {row.line}, column '{kind}'", row.at, f"above {block[-1].at:g}: rows sorted by {kind}"
            )
        if kind == "level" and row.at != len(block):
            raise SpecError(f"line {row.line}, column 'level'", row.at, f"level {len(block)}: no level may be missing")
        block.append(row)
    for block in blocks:
        _check_complete(block, blocks[0], kind)
    return blocks


def _check_complete(block: list[_Row], first: list[_Row], kind: str) -> None:
    last = block[-1]
    if len(first) < 2:
        raise SpecError(f"line {last.line}, column '{kind}'", last.at, "at least two rows for each time")
    here, there = {row.at for row in block}, {row.at for row in first}
    if missing := sorted(there - here):
        raise SpecError(f"line {last.line}, column '{kind}'", missing, f"a row for each at time {last.time:g} too")
    for row in block:
        if row.at not in there:
            raise SpecError(f"line {row.line}, column '{kind}'", row.at, f"one of those at time {first[0].time:g}")


def _since_first(table: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(b - a for a, b in zip(table[0], row, strict=True)) for row in table)


def _entries(name: str, values: Any) -> tuple[float, ...]:
    """``values`` as plain numbers of at least 0."""
    if not isinstance(values, tuple):
        raise SpecError(name, values, "a tuple of numbers")
    return tuple(check_number(f"{name}[{i}]", value, low=0.0) for i, value in enumerate(values))


def _rising(name: str, values: Any, shortest: int) -> tuple[float, ...]:
    """:func:`_entries`, each above the one before, at least ``shortest`` of them."""
    entries = _entries(name, values)
    if len(entries) < shortest:
        raise SpecError(name, values, f"at least {shortest} numbers")
    for i, (before, entry) in enumerate(itertools.pairwise(entries), start=1):
        if not entry > before:
            raise SpecError(f"{name}[{i}]", entry, f"above {before:g}")
    return entries
