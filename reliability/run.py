"""Faults and what comes of them, as a table.

Command:   make faults      (everything; ARGS="--only sigkill_training --trials 3": a part of it, the rest stays)
Hardware:  any machine; a tmpfs is mounted for the full disk, for which one has to be root.
Time:      about twenty minutes on two cores.
Writes:    docs/reliability.json, and docs/reliability.md from it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from reliability import damage, disks, hostile, kills, threads
from xbm_jax.report import run_context
from xbm_jax.storage.files import replace_file, replace_json

HERE = Path(__file__).resolve().parents[1] / "docs"
BAD = ("silent", "bare", "lost", "hung", "leftovers", "memory")


@dataclasses.dataclass(frozen=True)
class Row:
    """A fault: what is done, how often, what Orbax alone makes of it, and what is measured."""

    fault: str
    trials: int
    alone: str
    goal: str
    measure: Callable[[int], Any]


ROWS = {
    "flipped_bits": Row(
        "one flipped bit anywhere in a bank or a saved run", 300, "144 of 150 silent", "0 silent", damage.flipped_bits
    ),
    "damaged_files": Row("truncated, empty, missing or swapped files", 100, "-", "0 silent", damage.damaged_files),
    "sigkill_replacing": Row(
        "SIGKILL while a task is replaced", 100, "18 of 20 lost", "0 lost", kills.killed_while_replacing
    ),
    "sigkill_training": Row(
        "SIGKILL in training at a random moment", 20, "-", "bit-equal end", kills.killed_while_training
    ),
    "full_disk": Row(
        "disk full at a random write", 20, "-", "old state intact, named error, no leftovers after gc", disks.full_disk
    ),
    "two_writers": Row(
        "two writers at once, 20 puts", 20, "hangs", "all there or refused by name, 0 hangs", kills.two_writers
    ),
    "other_devices": Row(
        "saved on 8 devices, loaded on 1", 3, "fails without a template", "loads", disks.other_devices
    ),
    "threads": Row(
        "8 threads predicting while tasks are added, replaced, removed",
        120,
        "-",
        "0 wrong, memory grows under 5 % in the second half",
        lambda seconds: threads.served_while_tasks_change(seconds),
    ),
    "hostile_files": Row(
        "hostile banks, exports, weights and data", 200, "-", "named errors, under 1 GiB", hostile.hostile_files
    ),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Which faults.

    Args:
        only: some of them; by default all.
        trials: of each (seconds, for the threads), in place of the usual numbers.
    """

    only: tuple[str, ...] = ()
    trials: int | None = None


def measured(name: str, trials: int | None = None) -> dict[str, Any]:
    """A row of the table: counts by outcome, and whether the goal is met."""
    row, began = ROWS[name], time.perf_counter()
    count = row.trials if trials is None else trials
    found = row.measure(count)
    if isinstance(found, str):
        return {"name": name, "fault": row.fault, "not_run": found}
    counts, more = found if isinstance(found, tuple) else (found, {})
    met = not any(counts[kind] for kind in BAD) and more.get("grew", 0.0) < 0.05 and sum(counts.values()) > 0
    return {
        "name": name,
        "fault": row.fault,
        "trials": count,
        "unit": "s" if name == "threads" else "trials",
        "counts": dict(sorted(counts.items())),
        **more,
        "met": met,
        "seconds": time.perf_counter() - began,
    }


_INTRODUCTION = (
    "`make faults` does what this table says and writes it: to a bank of three tasks of a tiny network and to a saved",
    "training of it. «Whole»: the answer was the one that was stored, or stood before; «named»: an error of this",
    "package that says what is wrong. All else is a fault of ours: silent (something else, without a word), bare",
    "(another exception), lost, hung.",
)


def page(rows: dict[str, Any], context: dict[str, Any]) -> str:
    """The page, from what was measured."""
    lines = ["# Reliability: faults injected, and what came of them", "", *_INTRODUCTION, ""]
    lines += ["| fault | trials | outcome | goal | met | Orbax alone |", "|---|---|---|---|---|---|"]
    for name, row in ROWS.items():
        found = rows.get(name)
        if found is None or "not_run" in found:
            why = "not run" if found is None else f"not run: {found['not_run']}"
            lines.append(f"| {row.fault} | | {why} | {row.goal} | | {row.alone} |")
            continue
        outcome = ", ".join(f"{count} {kind}" for kind, count in found["counts"].items())
        if "grew" in found:
            outcome += f"; memory {found['grew']:+.1%}"
        trials = f"{found['trials']} s" if found["unit"] == "s" else found["trials"]
        met = "yes" if found["met"] else "no"
        lines.append(f"| {row.fault} | {trials} | {outcome} | {row.goal} | {met} | {row.alone} |")
    versions = ", ".join(f"{name} {version}" for name, version in context["versions"].items())
    said = f"Measured on {context['cpus']} cores of {context['os']}; {versions}. «Orbax alone»: its own verbs."
    lines += ["", said, ""]
    return "\n".join(lines)


def main(config: Config) -> None:
    """Inject faults, and write what came of them after every row."""
    path = HERE / "reliability.json"
    known = json.loads(path.read_text()) if path.is_file() else {"rows": {}}
    context = run_context(dataclasses.asdict(config), seed=0)
    for name in config.only or ROWS:
        found = measured(name, config.trials)
        print(json.dumps(found), flush=True)
        known["rows"][name] = found
        known["context"] = context
        replace_json(path, known)
        replace_file(HERE / "reliability.md", page(known["rows"], context))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
