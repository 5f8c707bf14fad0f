"""The picture of docs/architecture.md: the way of data, and what of it is frozen, trained, state or a setting.

python tools/draw_architecture.py docs/figures/architecture.png
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

COLOURS = {"frozen": "#cfe2f3", "trained": "#fbd5a5", "state": "#d5ecc7", "setting": "#e6e1ee", "passing": "#ffffff"}
LEGEND = {
    "frozen": "frozen (the chip)",
    "trained": "trained (the task)",
    "state": "state (statistics, moments)",
    "setting": "setting: static, decides a program",
    "passing": "values on their way",
}
WIDTH, HEIGHT = 120, 66


@dataclass(frozen=True)
class Box:
    """A step: where it stands, what it is, what it is called, and the room that knows it."""

    x: float
    y: float
    width: float
    kind: str
    text: str
    room: str = ""
    height: float = 9

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.width, self.y + self.height / 2

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.height / 2

    def top(self, share: float = 0.5) -> tuple[float, float]:
        return self.x + share * self.width, self.y + self.height

    def bottom(self, share: float = 0.5) -> tuple[float, float]:
        return self.x + share * self.width, self.y


def row(y: float, width: float, gap: float, steps: list[tuple[str, str, str]], x: float = 2) -> list[Box]:
    """Boxes beside each other."""
    return [Box(x + i * (width + gap), y, width, kind, text, room) for i, (kind, text, room) in enumerate(steps)]


WRITTEN = row(
    50,
    19.6,
    4.5,
    [
        ("frozen", "weights file\narrays by name", "models.weights"),
        ("frozen", "Backbone\nNetwork + arrays by path", "models, models.zoo"),
        ("frozen", "program: plan, levels,\nconductances, Tiles", "crossbar.writing, .devices"),
        ("frozen", "calibrate: input scales,\nconverter ranges", "models.calibration"),
        ("frozen", "Chip: tiles, digital,\nnorms, stats, head", "models.chip"),
    ],
)
PASSED = row(
    29,
    10.1,
    1.66,
    [
        ("passing", "inputs\nx", "models"),
        ("passing", "input codes\nx_int", "reading"),
        ("passing", "DAC cycles\nj", "reading"),
        ("passing", "column sums\nI[j, v, t, n]", "reading"),
        ("passing", "converters\nADC(I)", "primitives"),
        ("passing", "shift, add\nD[t, n]", "reading"),
        ("trained", "gains, tiles\nsum a[t, n] D", "masks, reading"),
        ("trained", "norms,\ndigital layers", "models"),
        ("trained", "head\noutputs", "masks.heads"),
        ("setting", "objective\nloss, score", "tasks"),
    ],
)
LEARNED = row(
    7,
    15.3,
    4.85,
    [
        ("setting", "Method: rule,\nnorm policy, head", "masks"),
        ("setting", "Run: chip, data,\nMethod, Recipe, key", "training"),
        ("state", "RunState: trained,\nstats, moments", "training (advance)"),
        ("trained", "Task: masks, norms,\nhead; statistics", "tasks"),
        ("trained", "MaskBank:\ncodes, packed", "banks, storage"),
        ("trained", "Server: tasks in\nmemory, two programs", "serving"),
    ],
)


def draw_box(axes: Axes, box: Box) -> None:
    """A box with its text, its room below."""
    style = "round,pad=0,rounding_size=1"
    shape = FancyBboxPatch(
        (box.x, box.y), box.width, box.height, boxstyle=style, fc=COLOURS[box.kind], ec="#444444", lw=0.9
    )
    axes.add_patch(shape)
    axes.text(box.x + box.width / 2, box.y + box.height / 2, box.text, ha="center", va="center", fontsize=9)
    axes.text(
        *(box.x + box.width / 2, box.y - 0.7),
        box.room,
        ha="center",
        va="top",
        fontsize=7.5,
        color="#555555",
        family="monospace",
    )


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = "#444444") -> None:
    """From one point to another."""
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0})


def bent(axes: Axes, points: list[tuple[float, float]], colour: str) -> None:
    """Along points, an arrow at the last."""
    axes.plot(*zip(*points[:-1], strict=True), color=colour, lw=1.2, solid_capstyle="butt")
    arrow(axes, points[-2], points[-1], colour)


def between_rows(axes: Axes) -> None:
    """The chip is read, the task is applied, gradients go back to what is trained alone."""
    chip, task, state = WRITTEN[-1], LEARNED[3], LEARNED[2]
    blue, orange, green = "#3d78b0", "#c4761b", "#5b9a3a"
    x = chip.bottom()[0]
    axes.plot([x, x], [chip.y - 3.2, 42.6], color=blue, lw=1.2)
    axes.plot([PASSED[1].top()[0], x], [42.6, 42.6], color=blue, lw=1.2)
    for box in (PASSED[1], PASSED[3], PASSED[4], PASSED[5], PASSED[7]):
        arrow(axes, (box.top()[0], 42.6), box.top(), blue)
    axes.text(
        PASSED[1].top()[0] + 0.5,
        43.2,
        "scales, cells, ranges, source statistics: read, never changed",
        fontsize=8,
        color=blue,
    )
    x = task.top()[0]
    axes.plot([x, x], [task.top()[1], 21.5], color=orange, lw=1.2)
    axes.plot([x, PASSED[8].top()[0]], [21.5, 21.5], color=orange, lw=1.2)
    for box in (PASSED[6], PASSED[7], PASSED[8]):
        arrow(axes, (box.top()[0], 21.5), (box.top()[0], box.y - 2.9), orange)
    axes.text(x + 8, 19.2, "what a task brings", fontsize=8, color=orange)
    x = PASSED[9].bottom()[0]
    points = [(x, PASSED[9].y - 2.9), (x, 24.0), (state.top()[0], 24.0), state.top()]
    bent(axes, points, green)
    axes.text(state.top()[0] + 0.6, 24.5, "gradients, to what is trained alone", fontsize=8, color=green)


def draw(path: Path) -> None:
    """Write the picture."""
    figure, axes = plt.subplots(figsize=(12, 6.3))
    axes.set(xlim=(0, WIDTH), ylim=(3, HEIGHT))
    axes.axis("off")
    for boxes, title in ((WRITTEN, "A chip, once"), (PASSED, "An answer"), (LEARNED, "A task")):
        axes.text(2, boxes[0].y + 10.2, title, fontsize=10.5, weight="bold")
        for box, following in zip(boxes, [*boxes[1:], None], strict=True):
            draw_box(axes, box)
            if following is not None:
                arrow(axes, box.right, following.left)
    between_rows(axes)
    for i, (kind, text) in enumerate(LEGEND.items()):
        x = 2 + i * 23.5
        axes.add_patch(
            FancyBboxPatch((x, 63.2), 2.2, 1.8, boxstyle="square,pad=0", fc=COLOURS[kind], ec="#444444", lw=0.8)
        )
        axes.text(x + 2.9, 64.1, text, fontsize=8, va="center")
    figure.subplots_adjust(0, 0, 1, 1)
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/figures/architecture.png"))
