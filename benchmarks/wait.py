"""Where the seconds of ``xbm quickstart`` go, in a new process and an empty folder, nothing compiled and then again.

Command:   python -m benchmarks.wait       --before earlier.json: stand beside another time's
Hardware:  CPU cores that do nothing else; a run that had not all of them is marked.
Time:      two quickstarts.
Writes:    benchmarks/wait.json; docs/figures/wait.png; the table of docs/performance.md. What the file held stands
           beside the new numbers as those of before, until --before names others.

Goals, on two cores: 100 s with an empty cache of compiled programs and 60 s with a full one, the first row after 15 s.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console

from benchmarks import page
from benchmarks.machine import Watched, machine
from benchmarks.waited import BESIDE, GOALS, PHASES
from xbm_jax.report.figure import FAINT, INK, drawn, plain_axes
from xbm_jax.storage.files import replace_json

__all__ = ["OUT", "Config", "draw", "main"]

HERE = Path(__file__).resolve().parent
OUT = HERE / "wait.json"

RUNS = {"cold": "nothing compiled before", "warm": "all compiled by the run before"}
_COLOURS = {"cold": "#0072B2", "warm": "#E69F00"}


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        out: the numbers.
        before: earlier numbers to stand beside.
        figure: their picture.
        args: of ``xbm``; ``{out}`` is an empty folder.
    """

    out: Path = OUT
    before: Path | None = None
    figure: Path = HERE.parent / "docs" / "figures" / "wait.png"
    args: tuple[str, ...] = ("quickstart", "--out", "{out}")


def main(config: Config) -> None:
    console, before, watched = Console(), _before(config), Watched()
    with tempfile.TemporaryDirectory() as folder:
        runs = {name: _run(config.args, Path(folder), name, watched.again()) for name in RUNS}
    found = {"command": ["xbm", *config.args], "runs": runs, "before": before} | machine()
    replace_json(config.out, found)
    draw(found, config.figure)
    for row in page.wait_rows(found):
        console.print("  ".join(f"{cell:>12s}" if i else f"{cell:18s}" for i, cell in enumerate(row)))
    if config.out == OUT:
        page.write()


def _before(config: Config) -> Any:
    """The runs to stand beside: of the file that is named, or of before, or the last ones."""
    path = config.before or config.out
    if not path.exists():
        return None
    stored = json.loads(path.read_text(encoding="utf-8"))
    return stored["runs"] if config.before or not stored.get("before") else stored["before"]


def _run(args: Sequence[str], folder: Path, name: str, watched: Watched) -> dict[str, Any]:
    """One process, watched from outside for what it cannot see of itself: how it starts and ends."""
    notes, out = folder / f"{name}.json", folder / name
    own = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    environment = own | {"XBM_COMPILE_CACHE": str(folder / "compiled")}
    spawned = time.time()
    command = [
        sys.executable,
        "-m",
        "benchmarks.waited",
        str(notes),
        repr(spawned),
        *(arg.format(out=out) for arg in args),
    ]
    subprocess.run(command, env=environment, cwd=HERE.parent, check=True, stdout=subprocess.DEVNULL)
    ended, seen = time.time(), json.loads(notes.read_text(encoding="utf-8"))
    seconds = seen["seconds"] | {"leaving": ended - seen["end"]}
    first = seen["first_row"]
    return {
        "total": round(ended - spawned, 2),
        "first_row": None if first is None else round(first, 2),
        "seconds": {phase: round(seconds.get(phase, 0.0), 2) for phase in PHASES},
        **{part: {name: round(value, 2) for name, value in seen[part].items()} for part in (BESIDE, "programs")},
    } | watched.seen()


def _both(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The runs of before, if there are, and those of now."""
    if not found.get("before"):
        return [("", found["runs"])]
    return [(", before", found["before"]), (", now", found["runs"])]


def draw(found: Mapping[str, Any], path: Path | None) -> bytes:
    """A waterfall of each run as one PNG: what is waited for begins where what is above it ends."""
    return drawn(lambda: _figure(found), path)


def _figure(found: Mapping[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    panels = figure.subplots(1, len(RUNS), sharey=True, sharex=True)
    shown = [
        p for p in PHASES if any(run["seconds"].get(p, 0) >= 0.05 for _, of in _both(found) for run in of.values())
    ]
    for axes, (name, label) in zip(panels, RUNS.items(), strict=True):
        _waterfall(axes, [(word, of[name]) for word, of in _both(found)], shown, _COLOURS[name])
        first, goal = found["runs"][name]["first_row"], GOALS[name]["total"]
        after = "" if first is None else f", the first row after {first:.0f}"
        axes.set_title(f"{label}: {found['runs'][name]['total']:.0f} s{after}", fontsize=10, color=INK)
        axes.axvline(goal, color="#CC6677", lw=1, ls="--")
        axes.annotate(f" goal {goal:g} s", (goal, -0.65), fontsize=8, color="#CC6677", va="bottom")
    return figure


def _waterfall(axes: Any, runs: Sequence[tuple[str, Mapping[str, Any]]], shown: Sequence[str], colour: str) -> None:
    height = 0.8 / len(runs)
    for place, (_, run) in enumerate(runs):
        at, faint = 0.0, len(runs) > 1 and place == 0
        for line, phase in enumerate(shown):
            seconds = run["seconds"].get(phase, 0.0)
            y = line - 0.4 + (place + 0.5) * height
            fill = "#999999" if phase == "rest" else colour
            axes.barh(y, seconds, height * 0.9, left=at, color=fill, alpha=0.35 if faint else 1.0)
            if seconds >= 0.05:
                axes.annotate(f" {seconds:.1f}", (at + seconds, y), fontsize=7, color=INK, va="center")
            at += seconds
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(len(shown) - 0.4, -1.1)
    axes.set_xlim(0, None)
    axes.margins(x=0.08)
    axes.set_xlabel("seconds" + (", before (faint) and now" if len(runs) > 1 else ""), fontsize=9, color=INK)
    plain_axes(axes)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=FAINT, lw=0.6)


if __name__ == "__main__":
    main(tyro.cli(Config))
