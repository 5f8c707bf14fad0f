"""The page: a section for each kind of thing that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xbm_jax.report.names import natural, shortened
from xbm_jax.report.web.found import Found
from xbm_jax.report.web.maps import confusion_table, mask_map
from xbm_jax.report.web.markup import Markup, document, element, joined
from xbm_jax.report.web.panels import fronts, learning, within
from xbm_jax.report.web.tables import flat, number, results, text_table

__all__ = ["LARGEST", "page_of"]

LARGEST = 2_000_000
"""Bytes of a page, at most: what would be more is left out, and said."""

_MOST_ROWS, _MOST_NOTES, _LONGEST_NOTE, _CONTEXT_LETTERS = 1000, 50, 1000, 40_000
_MAP_BYTES, _CURVE_BYTES, _CONFUSION_BYTES = 700_000, 400_000, 250_000
_MOST_LAYERS, _MOST_TASKS = 300, 24
_READ_WORDS = ("layer", "read", "at tile, column", "at column")


def page_of(found: Found) -> Markup:
    """The page of what was found, of at most :data:`LARGEST` bytes: the less room, the fewer rows, maps and panels."""
    for share in (1.0, 0.4, 0.1, 0.02):
        page = _page(found, share)
        if len(page.encode()) <= LARGEST:
            return page
    return _page(Found(found.title, notes=["All that was found is too much for a page."]), 1.0)


def _page(found: Found, share: float) -> Markup:
    notes = [note[:_LONGEST_NOTE] for note in found.notes[:_MOST_NOTES]]
    rows = [flat(row) for row in found.rows[: int(share * _MOST_ROWS)]]
    if len(rows) < len(found.rows):
        notes.append(f"Of {len(found.rows):,} rows the first {len(rows):,} are shown.")
    parts = (
        ("Results", [results(rows)] if rows else []),
        ("Accuracy against cost", fronts(rows)),
        ("Learning curves", learning(found.curves, int(share * _CURVE_BYTES), notes)),
        ("Masks", _masks(found, int(share * _MAP_BYTES), notes)),
        ("Confusion", _confusions(found, int(share * _CONFUSION_BYTES), notes)),
        ("Chip health", _health(found)),
        ("In words", [element("p", element("b", f"{title}. "), text) for title, text in found.facts]),
        ("Made with", _context(found.context)),
    )
    shown = [(title, f"s{i}", content) for i, (title, content) in enumerate(parts) if content]
    title = shortened(found.title, 200)
    return document(
        title,
        element("a", "Skip to the content", href="#content", class_="skip"),
        element("header", element("h1", title), *(element("p", note, class_="faint") for note in notes)),
        _links(shown),
        element("main", *(_section(*part) for part in shown), id="content"),
        element("div", id="tip", role="status", hidden=True),
    )


def _links(parts: Sequence[tuple[str, str, Any]]) -> Markup:
    links = [element("li", element("a", title, href=f"#{place}")) for title, place, _ in parts]
    return element("nav", element("ul", *links), aria_label="Sections")


def _section(title: str, place: str, content: Sequence[Markup]) -> Markup:
    return element(
        "section", element("h2", title, id=f"{place}-title"), *content, id=place, aria_labelledby=f"{place}-title"
    )


def _masks(found: Found, room: int, notes: list[str]) -> list[Markup]:
    parts = []
    for task in found.maps:
        pictures = within(mask_map(task), len(task.layers), room // len(found.maps), f"layers of {task.name}", notes)
        parts += [element("h3", task.name), element("div", *pictures, class_="maps")]
    told = (
        "A pixel is a column of a row tile: coloured where its partial sum counts, empty where the mask leaves it out."
    )
    parts = [element("p", told, class_="faint"), *parts] if parts else []
    return parts + _by_layer(found.active, "Columns that count, in per cent, by layer.")


def _confusions(found: Found, room: int, notes: list[str]) -> list[Markup]:
    shown = (joined(element("h3", c.name), confusion_table(c)) for c in found.confusions)
    return within(shown, len(found.confusions), room, "confusions", notes)


def _health(found: Found) -> list[Markup]:
    parts = []
    if found.health is not None and found.health.layers:
        lines = [layer.cells() for layer in found.health.layers[:_MOST_LAYERS]]
        notes = [element("p", note, class_="faint") for note in found.health.notes()]
        parts = [text_table(lines, _READ_WORDS, "Layers of the chip: headings sort"), *notes]
    return parts + _by_layer(
        found.clips, "Conversions that clip, in per cent, on a batch of each task's training images."
    )


def _by_layer(shares: Mapping[str, Mapping[str, float]], told: str) -> list[Markup]:
    """A table of shares, a row a layer, a column a task."""
    known = dict([(name, layers) for name, layers in shares.items() if layers][:_MOST_TASKS])
    paths = sorted({path for layers in known.values() for path in layers}, key=natural)[:_MOST_LAYERS]
    if not paths:
        return []
    lines = [{"layer": path, **{name: _percent(known[name].get(path)) for name in known}} for path in paths]
    return [element("p", told), text_table(lines, _READ_WORDS, f"{told} Headings sort.")]


def _percent(share: Any) -> str:
    found = number(share)
    return "-" if found is None else f"{100 * found:.2f}"


def _context(context: Mapping[str, Any]) -> list[Markup]:
    if not context:
        return []
    pairs = [(name, _inline(value)) for name, value in context.items() if name != "config"]
    terms = [joined(element("dt", name), element("dd", value)) for name, value in pairs]
    parts = [element("dl", *terms)]
    if context.get("config"):
        config = json.dumps(context["config"], indent=1, ensure_ascii=False, default=str)
        cut = config if len(config) <= _CONTEXT_LETTERS else config[:_CONTEXT_LETTERS] + "\n... (cut)"
        summary = element("summary", "Configuration")
        parts.append(element("details", summary, element("pre", cut, tabindex="0")))
    return parts


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(item)}" for name, item in value.items())
    return str(value)[:2000]
