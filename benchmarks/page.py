"""The tables of docs/performance.md, of the committed numbers and nothing else: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.growth import SERIES
from benchmarks.rows import ROWS
from benchmarks.waited import GOALS, PHASES
from xbm_jax.storage.files import replace_file

__all__ = ["PAGE", "apart", "filled", "remarks", "slope", "span", "value", "value_of", "wait_rows", "write"]

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "performance.md"
_NOT_YET = "not measured yet"
_KINDS = ("ratio", "seconds", "gib")

Row = Mapping[str, Any]


def write() -> None:
    """Fill the page with what lies beside this file."""
    replace_file(PAGE, filled(PAGE.read_text(encoding="utf-8")).encode())


def filled(text: str, folder: Path = HERE) -> str:
    """The page with its tables anew, from the numbers of a folder."""
    for name, (file, table) in _TABLES.items():
        begin, end, path = f"<!-- {name} -->\n", f"<!-- end of {name} -->", folder / file
        head, rest = text.split(begin)
        made = table(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else f"{_NOT_YET.capitalize()}.\n"
        text = head + begin + made + end + rest.split(end)[1]
    return text


def value_of(row: Row) -> float:
    """The number that a goal is for."""
    return next(row[kind] for kind in _KINDS if row.get(kind) is not None)


def value(row: Row) -> str:
    """That number, with its unit."""
    if row["ratio"] is not None:
        return f"{row['ratio']:.2f}"
    return f"{row['seconds']:.3g} s" if "seconds" in row else f"{row['gib']:.2f} GiB"


def span(row: Row) -> str:
    """Least and largest round, where there are several."""
    return f"{row['least']:.2f} to {row['largest']:.2f}" if "least" in row else "-"


def apart(row: Row) -> str:
    """How far the halves of the rounds lie apart."""
    return f"{row['halves_apart']:.0%}" if "halves_apart" in row else "-"


def remarks(row: Row) -> str:
    """What takes from a row's weight, and the limit of one that misses its goal."""
    found = ["wavers"] if row.get("wavers") else []
    found += [] if row.get("quiet", True) else ["not quiet"]
    if limits := row.get("roofline"):
        found.append(f"limits {limits['limit_by_products']:.2f} products, {limits['limit_by_memory']:.2f} memory")
    return ", ".join(found)


def slope(points: Sequence[Row], axis: str = "y") -> float:
    """How cost grows with ``x``: the slope of a straight line through the logarithms of both; 1 is linear."""
    x, y = ([math.log(point[name]) for point in points] for name in ("x", axis))
    middle, level = sum(x) / len(x), sum(y) / len(y)
    return sum((a - middle) * (b - level) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def wait_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Seconds of every run, those of before too, and what is asked of them; the first row is the head."""
    times = [("before", found["before"])] if found.get("before") else []
    times.append(("now" if times else "", found["runs"]))
    runs = [(f"{name} {word}".strip(), name, run) for word, of in times for name, run in of.items()]
    rows = [["seconds", *(label for label, _, _ in runs)]]
    rows += [[phase, *(f"{run['seconds'].get(phase, 0):.1f}" for _, _, run in runs)] for phase in PHASES]
    for key, label in (("total", "all of it"), ("first_row", "the first row after")):
        rows.append([label, *("-" if run[key] is None else f"{run[key]:.1f}" for _, _, run in runs)])
        rows.append([f"goal of {label}", *(f"{goal:g}" if (goal := GOALS[name][key]) else "-" for _, name, _ in runs)])
    return [*rows, ["machine", *("quiet" if run["quiet"] else "not quiet" for _, _, run in runs)]]


def _rows(rows: Sequence[Row]) -> str:
    found = {row["work"]: row for row in rows}
    cells = [["work", "median", "range", "halves apart", "goal", "best peer", "met", "remarks"]]
    for row in ROWS:
        peer = "-" if row.peer is None else f"{row.peer:g}"
        if (one := found.get(row.work)) is None:
            cells.append([row.work, _NOT_YET, "-", "-", f"{row.goal:g}", peer, "-", ""])
        else:
            met = "yes" if one["met"] else "**no**"
            cells.append([row.work, value(one), span(one), apart(one), f"{row.goal:g}", peer, met, remarks(one)])
    count = sum(row["met"] for row in found.values())
    return f"{count} of {len(found)} measured rows meet their goal. {_made_on(rows)}\n\n{_table(cells)}"


def _growth(stored: Mapping[str, Any]) -> str:
    cells = [["what grows", "from, to", "cost", "slope", "of the plain operation"]]
    for name, of in SERIES.items():
        points = stored["series"].get(name, [])
        if len(points) < 2:
            cells.append([of.label, f"{of.at[0]}, {of.at[-1]}", _NOT_YET, "-", "-"])
            continue
        cost = f"{points[0]['y']:.3g} to {points[-1]['y']:.3g} {of.unit}"
        ends = f"{points[0]['x']}, {points[-1]['x']}"
        cells.append([of.label, ends, cost, f"{slope(points):.2f}", f"{slope(points, 'plain'):.2f}"])
    return f"{_made_on([point for points in stored['series'].values() for point in points])}\n\n{_table(cells)}"


def _wait(found: Mapping[str, Any]) -> str:
    figure = "![Where the seconds of a quickstart go](figures/wait.png)"
    return f"{_made_on([found])}\n\n{figure}\n\n{_table(wait_rows(found))}"


def _made_on(rows: Sequence[Row]) -> str:
    """Which machines and versions numbers are of, as few words as there are kinds."""
    kinds = {
        f"{row['machine']['cpus']} {row['machine']['platform']} cores, jax {row['versions']['jax']}" for row in rows
    }
    return f"Measured on {'; '.join(sorted(kinds))}."


def _table(cells: Sequence[Sequence[str]]) -> str:
    """Markdown; numbers to the right."""
    head, *rows = cells
    lines = [head, [":---", *("---:" for _ in head[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_TABLES: dict[str, tuple[str, Callable[[Any], str]]] = {
    "rows": ("latest.json", _rows),
    "growth": ("series.json", _growth),
    "wait": ("wait.json", _wait),
}


if __name__ == "__main__":
    write()
