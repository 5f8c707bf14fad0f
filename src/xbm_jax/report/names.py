"""What tables, pictures and pages share of names: a line of text, a shorter one, an order, a colour for each method."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

__all__ = ["as_text", "method_colours", "natural", "shortened"]

# Okabe and Ito (2008): told apart with any colour vision. A method keeps its colour from figure to figure.
_COLOURS = {
    "head_only": "#56B4E9",
    "norm_only": "#0072B2",
    "xbm": "#D55E00",
    "piggyback": "#009E73",
    "finetune": "#CC79A7",
}
_OTHER_COLOURS = ("#E69F00", "#000000", "#999999")


def as_text(text: str) -> str:
    """``text`` in one line: line breaks and control characters, which a name may hold, as Python's escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def method_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each method: its own, the same in every figure, or one that is free."""
    others = [method for method in methods if method not in _COLOURS]
    free = [*_OTHER_COLOURS, *(colour for method, colour in _COLOURS.items() if method not in methods)]
    spare = dict(zip(others, itertools.cycle(free), strict=False))
    return {method: _COLOURS.get(method) or spare[method] for method in methods}


def shortened(name: str, limit: int = 36) -> str:
    """A name of at most about ``limit`` letters, its middle left out."""
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-limit // 2 :]}"


def natural(path: str) -> list[tuple[int, str]]:
    """A key by which ``block10`` stands behind ``block9``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", path)]
