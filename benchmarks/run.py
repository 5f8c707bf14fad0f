"""How fast it is: ratios to the plain XLA operation in the same process, with the goal and the best peer beside them.

Command:   make bench      ARGS="--only conv": a part of it, the rest stays; ARGS="--series --wait": all there is
Hardware:  CPU cores that do nothing else; a row that was measured while they did is marked.
Time:      not taken yet; before compile times were measured five times it was sixteen minutes on two cores.
Writes:    benchmarks/latest.json after every row, a list with one object per row; the tables of docs/performance.md.

A row is the median of interleaved rounds, at least five of them; by it the goal is met or missed. Beside it stand the
least and the largest round, and how far the medians of both halves of the rounds lie apart: above 15 % the row wavers,
and says nothing. Bytes do not vary and are counted once. A row that misses its goal has a roofline: the ratios that
its compiled program would have at the rates of this machine's plain product and plain copy (benchmarks/programs.py).
Peers' ratios are to their own plain operation, measured by their own means on other machines: an order of magnitude,
not a race.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import page, series, wait
from benchmarks.machine import Watched, machine
from benchmarks.page import apart, remarks, span, value, value_of
from benchmarks.programs import roofline
from benchmarks.rows import ROWS, Row
from benchmarks.timing import spread
from xbm_jax.storage.files import replace_json

HERE = Path(__file__).resolve().parent
OUT = HERE / "latest.json"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        only: measure the rows whose name contains this.
        series: also measure how cost grows, and draw it: ``python -m benchmarks.series``.
        wait: also measure where a quickstart's seconds go: ``python -m benchmarks.wait``.
        out: where the rows are written; with `only` the other rows that it holds stay.
    """

    only: str = ""
    series: bool = False
    wait: bool = False
    out: Path = OUT


def main(config: Config) -> None:
    console, chosen, watched = Console(), [row for row in ROWS if config.only in row.work], Watched()
    if not chosen:
        raise SystemExit(f"--only {config.only}: no row's name contains that; the names are in benchmarks/rows.py")
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    kept = json.loads(config.out.read_text(encoding="utf-8")) if config.only and config.out.exists() else []
    found = {row["work"]: row for row in kept}
    for row in chosen:
        found[row.work] = measured(row, watched.again()) | machine()
        replace_json(config.out, rows := _judged(found))
        console.print(_line(found[row.work]))
    console.print(table(rows))
    if config.series:
        series.main(series.Config())
    if config.wait:
        wait.main(wait.Config())
    if config.out == OUT:
        page.write()


def measured(row: Row, watched: Watched) -> dict[str, Any]:
    """A row's numbers, but for the machine's."""
    found, rounds = row.measure(), {}
    seen = spread(found.rounds)
    if len(found.rounds) > 1:
        rounds = {"least": round(seen.least, 3), "largest": round(seen.largest, 3), "rounds": len(found.rounds)}
        rounds |= {"halves_apart": round(seen.halves_apart, 3), "wavers": seen.wavers}
    made = {"work": row.work, "ratio": None, found.kind: round(seen.median, 3)}
    made |= {"goal": row.goal, "peer": row.peer, "met": round(seen.median, 2) <= row.goal}
    made |= rounds | {name: round(value, 3) for name, value in found.more.items()} | watched.seen()
    if not made["met"] and found.programs is not None:
        made["roofline"] = roofline(*found.programs, *(found.more[name] / 1e3 for name in ("ours_ms", "plain_ms")))
    return made


def _judged(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in their order, those measured before too, by the goals of today."""
    rows = [found[row.work] | {"goal": row.goal, "peer": row.peer} for row in ROWS if row.work in found]
    return [row | {"met": round(value_of(row), 2) <= row["goal"]} for row in rows]


def _line(row: dict[str, Any]) -> str:
    met = "met" if row["met"] else "MISSED"
    return f"{row['work']:66s} {value(row):>8s}  {span(row):>14s}   goal {row['goal']:g}   {met}   {remarks(row)}"


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    made = Table("work", "median", "range", "halves apart", "goal", "best peer", "met", "remarks")
    for row in rows:
        peer = "-" if row["peer"] is None else f"{row['peer']:g}"
        met = "yes" if row["met"] else "no"
        made.add_row(row["work"], value(row), span(row), apart(row), f"{row['goal']:g}", peer, met, remarks(row))
    return made


if __name__ == "__main__":
    main(tyro.cli(Config))
