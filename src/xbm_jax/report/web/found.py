"""What a page is made of: plain values, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbm_jax.tasks import Inspection

__all__ = ["Confusion", "Curve", "Found", "MaskMap"]


@dataclass(frozen=True)
class Curve:
    """A line of a learning curve.

    Args:
        panel: what it is drawn with: the data, and the quantity with its unit.
        name: of the line.
        axis: what is counted along the panel.
        points: (x, y), x rising; those that are not finite are left out.
    """

    panel: str
    name: str
    axis: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class MaskMap:
    """Which columns of each layer count for a task: bool [T, N], row tiles by columns, or of lines [T, 2, N]."""

    name: str
    layers: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Confusion:
    """How often images of each class (rows) were answered as each class (columns)."""

    name: str
    classes: Sequence[str]
    counts: np.ndarray

    @classmethod
    def of(cls, name: str, classes: Sequence[str], labels: Any, answers: Any) -> Confusion:
        """The counts of answers to labelled images."""
        counts = np.zeros((len(classes), len(classes)), np.int64)
        np.add.at(counts, (np.asarray(labels), np.asarray(answers)), 1)
        return cls(name, classes, counts)


@dataclass(frozen=True)
class Found:
    """Everything that is known of a run, a bank or a results file; what is not known is empty.

    Args:
        title: of the page.
        rows: of the table, plain values by name.
        curves: how learning went.
        maps: masks.
        confusions: answers against labels.
        health: what an inspection of the chip saw.
        clips: by entry and layer, the share of conversions that clip.
        active: likewise, the share of columns that count.
        facts: title and text.
        context: versions, device, seed, command, ``config``.
        notes: what could not be read, and what was left out.
    """

    title: str
    rows: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[Curve] = ()
    maps: Sequence[MaskMap] = ()
    confusions: Sequence[Confusion] = ()
    health: Inspection | None = None
    clips: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    active: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Sequence[tuple[str, str]] = ()
    context: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def with_(self, other: Found) -> Found:
        """This and what another knows beside it; its title stays, and its table and context where it has one."""
        return Found(
            self.title,
            self.rows or other.rows,
            [*self.curves, *other.curves],
            [*self.maps, *other.maps],
            [*self.confusions, *other.confusions],
            self.health or other.health,
            {**other.clips, **self.clips},
            {**other.active, **self.active},
            [*self.facts, *other.facts],
            self.context or other.context,
            [*self.notes, *other.notes],
        )
