"""The table of results: a row a result, headings that sort, fields that filter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xbm_jax.report.web.axes import short
from xbm_jax.report.web.markup import Markup, element

__all__ = ["flat", "number", "results", "shown_value", "text_table", "wide"]

Row = Mapping[str, Any]

_BITS = ("mask_bits", "weight_bits_stored", "norm_bits", "head_bits")
_HEADINGS = {
    "accuracy": "accuracy %",
    "val_accuracy": "validation %",
    "weight_bits_stored": "weight bits",
    "stored_bits": "all bits",
    "inference_joules": "inference J",
    "adaption_joules": "adaption J",
    "switch_joules": "switch J",
    "images_per_second": "images/s",
}
_FIRST = ("task", "method", "accuracy", "val_accuracy", "stored_bits", *_BITS, "cells_written")
_LONGEST = 80
_MOST_COLUMNS, _MOST_CHOICES = 40, 40


class _Column(NamedTuple):
    name: str
    heading: str
    numeric: bool


def flat(row: Row) -> dict[str, Any]:
    """Plain values of a row; of a nested mapping its numbers, by ``name key``. No long texts, nothing infinite."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if str(name).endswith("_joules") and not row.get("technology", "?"):
            continue  # zero stands there for what was not counted
        if isinstance(value, Mapping):
            found |= {f"{name} {key}": v for key, v in value.items() if number(v) is not None}
        elif (
            number(value) is not None or isinstance(value, bool) or (isinstance(value, str) and len(value) <= _LONGEST)
        ):
            found[str(name)] = value
    if all(number(found.get(name)) is not None for name in ("mask_bits", "norm_bits", "head_bits")):
        found.setdefault("stored_bits", sum(number(found.get(name)) or 0 for name in _BITS))
    return found


def number(value: Any) -> float | None:
    """A finite number, or none: files say what they will."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond all floats
        return None


def results(rows: Sequence[Row]) -> Markup:
    """Filters, the table of flat rows, and below it what is the same in all of them."""
    columns, same = _columns(rows)
    head = element("tr", *(_heading(c.heading, c.numeric) for c in columns))
    body = [element("tr", *(_cell(row, c) for c in columns), data_row=i) for i, row in enumerate(rows)]
    table = element("table", element("thead", head), element("tbody", *body), id="results")
    told = ", ".join(f"{c.heading} {shown_value(c.name, rows[0][c.name])}" for c in same)
    below = element("p", f"The same in all rows: {told}.", class_="faint") if told else None
    return element("div", _filters(rows, columns), wide(table, "Results: headings sort"), below)


def _columns(rows: Sequence[Row]) -> tuple[list[_Column], list[_Column]]:
    """Those of the table, known ones first, then numbers, then words; and those of one value in all rows."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: {row.get(name) for row in rows} for name in names}
    found = []
    for name in names:
        numeric = all(number(value) is not None or value is None for value in values[name])
        found.append(_Column(name, _HEADINGS.get(name, name.replace("_", " ")), numeric))
    found.sort(key=lambda c: _FIRST.index(c.name) if c.name in _FIRST else len(_FIRST) + (not c.numeric))
    told = [c for c in found if values[c.name] - {None, "", 0}]
    same = [c for c in told if len(rows) > 1 and len(values[c.name]) == 1 and c.name not in _FIRST[:3]]
    return [c for c in told if c not in same][:_MOST_COLUMNS], same[:_MOST_COLUMNS]


def _cell(row: Row, column: _Column) -> Markup:
    value = row.get(column.name)
    if not column.numeric:
        return element("td", shown_value(column.name, value))
    return element("td", shown_value(column.name, value), class_="n", data_v="" if value is None else value)


def shown_value(name: str, value: Any) -> str:
    """A value as a table has it: shares as per cent, counts with commas, small numbers with a prefix."""
    found = number(value)
    if value is None or isinstance(value, str) or found is None:
        return "" if value is None else str(value)
    if "accuracy" in name and 0 <= found <= 1:
        return f"{100 * found:.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{found:,.1f}" if 100 <= abs(found) < 1e6 else short(found)


def _filters(rows: Sequence[Row], columns: Sequence[_Column]) -> Markup:
    field = element(
        "label", "Filter", element("input", id="filter", type="search", placeholder="words", autocomplete="off")
    )
    choices = []
    for index, column in enumerate(columns):
        values = dict.fromkeys(shown_value(column.name, row.get(column.name)) for row in rows)
        if not column.numeric and 1 < len(values) <= _MOST_CHOICES:
            options = [element("option", "all", value=""), *(element("option", v, value=v) for v in values if v)]
            choices.append(element("label", column.heading, element("select", *options, data_column=index)))
    told = element("output", f"{len(rows)} rows", id="shown", class_="faint", for_="filter")
    button = element("button", "Show all", type="button", id="reset")
    return element("div", field, *choices[:4], button, told, class_="filters")


def text_table(lines: Sequence[Mapping[str, str]], words: Sequence[str], label: str) -> Markup:
    """A table of text by heading that sorts; all columns but those of ``words`` hold numbers."""
    numeric = {heading: heading not in words for heading in lines[0]}
    head = [_heading(heading, numeric[heading]) for heading in lines[0]]
    body = []
    for line in lines:
        cells = [element("td", text, class_=numeric[h] and "n", data_v=_leading(text)) for h, text in line.items()]
        body.append(element("tr", *cells))
    table = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return wide(table, label)


def wide(table: Markup, label: str) -> Markup:
    """A table that scrolls by itself where the page is narrow, by keyboard too."""
    return element("div", table, class_="wide", tabindex="0", role="region", aria_label=label)


def _heading(text: str, numeric: bool) -> Markup:
    return element("th", element("button", text, type="button"), scope="col", class_=numeric and "n")


def _leading(text: str) -> str | None:
    """What a cell sorts by: its number without commas; a dash is nothing."""
    word = text.replace(",", "").split(" ")[0]
    if text == "-":
        return ""
    try:
        float(word)
    except ValueError:
        return None
    return word
