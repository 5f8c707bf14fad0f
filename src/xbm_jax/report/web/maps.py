"""Masks as pictures of a pixel a column, and confusions as tables."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from xbm_jax.report.web.found import Confusion, MaskMap
from xbm_jax.report.web.markup import Markup, element
from xbm_jax.report.web.tables import wide

__all__ = ["confusion_table", "mask_map"]

_ON = (0x2B, 0x8C, 0xC4)
"""The colour of a column that counts, on light pages and dark ones; one that does not lets the page through."""

_WIDEST = 320
_MOST_CLASSES = 30
_MOST_MISTAKES = 25


def mask_map(task: MaskMap) -> Iterator[Markup]:
    """A picture for each layer: a row of pixels for each row tile (two by line), a pixel for each column."""
    return (_layer(task.name, path, np.asarray(on, bool)) for path, on in task.layers.items())


def _layer(task: str, path: str, on: np.ndarray) -> Markup:
    tiles, columns = on.shape[0], on.shape[-1]
    grid = on.reshape(-1, columns)
    by_line = ", each of two lines," if on.ndim == 3 else ""
    told = f"{path}: {on.mean():.1%} of {tiles} x {columns} on"
    label = f"{task}, layer {path}: {tiles} row tiles{by_line} of {columns} columns; {on.mean():.1%} of them count"
    scale = max(1, min(6, _WIDEST // columns))
    picture = element(
        "img",
        src=_png(grid),
        width=columns * scale,
        height=max(grid.shape[0] * scale, 4),
        alt=label,
        data_tip=label.replace("; ", "\n"),
    )
    return element("figure", element("figcaption", told), picture)


def _png(on: np.ndarray) -> str:
    """A picture of two colours, one of them transparent, as its own address."""
    image = Image.fromarray(on.astype(np.uint8), mode=None).convert("P")
    image.putpalette([0, 0, 0, *_ON])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0, bits=1, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def confusion_table(found: Confusion) -> Markup:
    """All counts of few classes, shaded by their share of the row; of many the mistakes that are made most often."""
    counts = np.asarray(found.counts)
    right = f"{found.name}: {int(np.trace(counts)):,} of {int(counts.sum()):,} as labelled"
    if len(found.classes) > _MOST_CLASSES:
        return _mistakes(right, found.classes, counts)
    head = element("tr", element("th", "labelled / answered", scope="col"), *_heads(found.classes))
    rows = [element("tr", element("th", n, scope="row"), *_cells(i, row)) for i, (n, row) in _named(found, counts)]
    caption = element("caption", right, class_="faint")
    table = element("table", caption, element("thead", head), element("tbody", *rows), class_="confusion")
    return wide(table, f"Confusion of {found.name}")


def _heads(classes: Sequence[str]) -> list[Markup]:
    return [element("th", name, scope="col") for name in classes]


def _named(found: Confusion, counts: np.ndarray):
    return enumerate(zip(found.classes, counts, strict=True))


def _cells(label: int, row: np.ndarray) -> list[Markup]:
    total = max(int(row.sum()), 1)
    shades = np.searchsorted([0.0, 0.05, 0.2, 0.5], row / total)  # 0 where none is, then so many of the five
    kinds = [f"h{shade}{' right' if i == label else ''}" for i, shade in enumerate(shades)]
    return [element("td", f"{int(n):,}" if n else "", class_=kind) for n, kind in zip(row, kinds, strict=True)]


def _mistakes(right: str, classes: Sequence[str], counts: np.ndarray) -> Markup:
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_MISTAKES]
    places = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    head = element("tr", *(element("th", name, scope="col") for name in ("labelled", "answered", "times")))
    rows = [
        element("tr", element("td", classes[i]), element("td", classes[j]), element("td", int(wrong[i, j]), class_="n"))
        for i, j in places
    ]
    caption = element("caption", f"{right}; the mistakes made most often", class_="faint")
    table = element("table", caption, element("thead", head), element("tbody", *rows))
    return wide(table, "Mistakes made most often")
