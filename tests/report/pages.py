"""What the tests of pages share: everything a page can show, made up, and pages that a browser is asked about."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from report.examples import INSPECTION, ROWS
from xbm_jax.report.web.found import Confusion, Curve, Found, MaskMap
from xbm_jax.report.web.markup import Markup

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'\u202e\ud800"
"""A name that would run, were it not escaped; with a mark that turns text around, and half a letter."""


def whole(name: str = "fashion_mnist") -> Found:
    """One of everything; ``name`` stands wherever a name can."""
    on = np.random.default_rng(0).random((3, 8)) < 0.7
    return Found(
        title=f"Bank {name}",
        rows=[{**row.to_json(), "task": row.task if row.task != "fashion_mnist" else name, name: name} for row in ROWS],
        curves=[Curve(f"{name}: loss", name, "epoch", [(1, 2.0), (2, 1.0), (3, float("nan"))])],
        maps=[MaskMap(name, {f"conv1 {name}": on, "conv2": np.stack([on, ~on], 1)})],
        confusions=[Confusion.of(name, [f"{name} a", "b"], [0, 0, 1, 1], [0, 1, 1, 1])],
        health=INSPECTION,
        clips={name: {name: 0.25}},
        active={name: {name: 0.75}},
        facts=[(name, name)],
        context={"command": f"xbm {name}", "versions": {"jax": name}, "config": {name: [name]}},
        notes=[f"{name} is damaged"],
    )


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text outside of style and script."""

    def __init__(self, page: Markup) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data if self.lasttag not in ("style", "script") else ""

    def all(self, tag: str) -> list[dict[str, Any]]:
        """Attributes of all elements of a kind."""
        return [attributes for name, attributes in self.found if name == tag]


def inline(page: str, tag: str) -> list[str]:
    """The content of all elements of a kind, as a browser finds it."""
    return re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)


def digest(text: str) -> str:
    """As a content-security policy writes it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
