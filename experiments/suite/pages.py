"""Tables and figures of the comparisons, from their rows alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments.intervals import Interval, mean_difference
from experiments.suite.parts import decoded

from xbm_jax.storage.files import replace_file

Rows = Sequence[Mapping[str, Any]]

LABELS = {
    "fashion_mnist": "Fashion-MNIST",
    "gtsrb43_32px": "GTSRB",
    "quickdraw100": "Quick, Draw!",
    "cifar10": "CIFAR-10",
}
STARTS = ("learned on chip", "moved, then learned")
CHOSEN = "learned, start chosen on validation"
CHANCE = "over paired test images and seeds (*: one seed, of the test images alone, chance of training unknown)"
BITS = ("mask_bits", "weight_bits_stored", "norm_bits", "head_bits")
ENERGIES = ("an example, uJ", "learning, J", "switching, uJ")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999", "#7F3C8D")


def write(out: Path, comparison: str, rows: Rows) -> None:
    """The comparison's table, and its figure where it has one."""
    if not rows:
        return
    makers: Mapping[str, Callable[[Rows], str]] = {
        "small_suite": suite_table,
        "large_suite": suite_table,
        "bits_front": front_table,
        "chip_in_the_loop": chips_table,
        "forgetting": forgetting_table,
    }
    replace_file(out / f"{comparison}.md", makers[comparison](rows))
    drawers = {"bits_front": draw_front, "chip_in_the_loop": draw_chips, "forgetting": draw_forgetting}
    if comparison in drawers:
        replace_file(out / f"{comparison}.png", picture(drawers[comparison], rows))


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    text = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    return "\n".join(text + [f"| {' | '.join(line)} |" for line in lines]) + "\n"


def suite_table(rows: Rows) -> str:
    """A method a row; accuracy per task, the paired difference to Piggyback, and what is stored and written."""
    parts = []
    for backbone, chip in dict.fromkeys((r["backbone"], r["chip"]) for r in rows):
        own = [r for r in rows if (r["backbone"], r["chip"]) == (backbone, chip)]
        tasks, methods = (list(dict.fromkeys(r[key] for r in own)) for key in ("task", "method"))
        heads = [
            "method",
            *(LABELS.get(t, t) for t in tasks),
            "mean - Piggyback",
            "mean - norms only",
            "mask bits",
            "all bits",
            "cells written",
            *(ENERGIES if any(r.get("technology") for r in own) else ()),
        ]
        lines = [_suite_line(own, method, tasks) for method in methods]
        facts = sorted({(r["images"], r["epochs"], r["norm_policy"]) for r in own if r["method"] != "head_only"})
        seeds = sorted({r["seed"] for r in own})
        source = [r["source_accuracy"] for r in own if r.get("source_accuracy") is not None]
        survives = f" Source network on these chips: {100 * np.mean(source):.1f} %." if source else ""
        told = "; ".join(f"{images} images, {epochs} epochs, norms {norms}" for images, epochs, norms in facts)
        parts.append(
            f"**{backbone}, {chip} chip.** {told}; seeds {', '.join(map(str, seeds))}.{survives}"
            f"\n\n{table(heads, lines)}\n{seen(own, methods)}"
        )
    note = (
        "Accuracy in % of the test images, of tasks as a bank keeps them. Differences are the mean over the tasks that "
        f"both have, with a 95 % interval {CHANCE}; «better» and «worse» where it leaves no doubt, else «undecided». "
        "All bits: masks or weights, norms and head, which are apart in the JSON file.\n"
    )
    return "\n".join([*parts, note, *filter(None, [energy_note(rows)])])


def _suite_line(rows: Rows, method: str, tasks: Sequence[str]) -> list[str]:
    cells, mine = [], [r for r in rows if r["method"] == method]
    for task in tasks:
        found = [r["accuracy"] for r in mine if r["task"] == task]
        cells.append(f"{100 * np.mean(found):.1f}" if found else "-")
    return [
        method,
        *cells,
        *("-" if method == other else paired(rows, method, other) for other in ("piggyback", "norm_only")),
        f"{_mean(mine, 'mask_bits'):,.0f}",
        f"{sum(_mean(mine, part) for part in BITS):,.0f}",
        f"{_mean(mine, 'cells_written'):,.0f}",
        *(_energies(mine) if any(r.get("technology") for r in rows) else ()),
    ]


def _energies(rows: Rows) -> list[str]:
    """Microjoules of one example, joules of learning, microjoules of switching; of the rows that have them."""
    known = [r for r in rows if r.get("technology")]
    units = {"inference_joules": 1e6, "adaption_joules": 1.0, "switch_joules": 1e6}
    return [f"{unit * _mean(known, name):.3g}" if known else "-" for name, unit in units.items()]


def energy_note(rows: Rows) -> str:
    """Whose energies a table shows."""
    names = ", ".join(sorted({r["technology"] for r in rows if r.get("technology")}))
    told = "every input at full scale, cells written once at the end, means over the trainings that have them"
    return f"Energies by {names}: {told} (`docs/cost.md`).\n" if names else ""


def seen(rows: Rows, methods: Sequence[str]) -> str:
    """The smallest difference to Piggyback that the table can see."""
    found = [difference(rows, method, "piggyback") for method in methods if method != "piggyback"]
    halves = [interval.half for interval in found if interval is not None and not interval.of_images_alone]
    if not halves:
        return "One seed sees no difference of methods: chance of training is unknown.\n"
    return (
        f"The smallest difference to Piggyback that this table can see: {100 * min(halves):.1f} to "
        f"{100 * max(halves):.1f} points, by method.\n"
    )


def paired(rows: Rows, method: str, other: str) -> str:
    """:func:`difference` in points, and what it decides."""
    found = difference(rows, method, other)
    return "-" if found is None else f"{found.points()} {found.verdict}"


def difference(rows: Rows, method: str, other: str) -> Interval | None:
    """Mean difference over the tasks and seeds that both have, with a 95 % interval; ``None`` where there are none.

    Of several tasks the seeds that all of them have: an interval over tasks needs the same ones (`intervals.py`).
    """
    by = {(r["task"], r["seed"], r["method"]): decoded(r["hits"], r["test_images"]).astype(float) for r in rows}
    both = [(task, seed) for task, seed, name in by if name == method and (task, seed, other) in by]
    seeds = {task: {s for t, s in both if t == task} for task, _ in both}
    shared = sorted(set.intersection(*seeds.values())) if seeds else []
    if not shared:
        return None
    return mean_difference([np.array([by[task, s, method] - by[task, s, other] for s in shared]) for task in seeds])


def front_table(rows: Rows) -> str:
    """Accuracy against stored mask bits, fewest first."""
    tasks, methods = (list(dict.fromkeys(r[key] for r in rows)) for key in ("task", "method"))
    bits = {m: next(r["mask_bits"] for r in rows if r["method"] == m) for m in methods}
    lines = []
    for method in sorted(methods, key=bits.__getitem__):
        whole = sum(_mean([r for r in rows if r["method"] == method], part) for part in BITS)
        cells = _suite_line(rows, method, tasks)[1 : 2 + len(tasks)]
        lines.append([method, f"{bits[method]:,}", f"{whole:,.0f}", *cells])
    heads = ["method", "mask bits", "all bits", *(LABELS.get(t, t) for t in tasks), "mean - Piggyback"]
    return f"{table(heads, lines)}\nAccuracy in %, differences with a 95 % interval {CHANCE}.\n"


def chips_table(rows: Rows) -> str:
    """An arm a row, a task and chip a column: accuracy, the share of the loss won back, paired gains, unseen chips."""
    places = list(dict.fromkeys((r["task"], r["chip"]) for r in rows))
    arms = list(dict.fromkeys(r["method"] for r in rows))
    heads = ["", *(f"{LABELS.get(task, task)}, {chip}" for task, chip in places)]
    at = {place: [r for r in rows if (r["task"], r["chip"]) == place] for place in places}

    def cells(arm: str, text: Callable[[Rows], str]) -> list[str]:
        own = ([r for r in at[place] if r["method"] == arm] for place in places)
        return [arm, *(text(found) if found else "-" for found in own)]

    ideal = ["ideal chip", *(f"{100 * _mean(at[place], 'accuracy_ideal'):.1f}" for place in places)]
    gains = [[arm, *(paired(at[place], arm, "moved") for place in places)] for arm in arms if arm != "moved"]
    unseen = [cells(arm, _unseen) for arm in arms if any("unseen_mean" in r for r in rows if r["method"] == arm)]
    parts = (
        (
            "Accuracy in %, in brackets the share of the loss won back (goal: 90 %, for losses of 5 to 30 points)",
            [ideal],
        ),
        (f"Points above the moved masks, 95 % intervals {CHANCE}", gains),
        ("The same masks on 20 other chips of the kind, mean and standard deviation between chips", unseen),
    )
    parts[0][1].extend(cells(arm, _recovered) for arm in arms)
    parts[0][1].append([CHOSEN, *(_chosen(at[place]) for place in places)])
    return "\n".join(f"{title}:\n\n{table(heads, lines)}" for title, lines in parts)


def _recovered(found: Rows) -> str:
    accuracy = f"{100 * _mean(found, 'accuracy'):.1f}"
    if found[0]["method"] == "moved" or any(r["recovered"] is None for r in found):
        return accuracy
    return f"{accuracy} ({100 * _mean(found, 'recovered'):.0f} %)"


def _chosen(rows: Rows) -> str:
    """Of the two starts of masks that are learned on the chip the one that is better on validation images, by seed."""
    chosen = []
    for seed in dict.fromkeys(r["seed"] for r in rows):
        own = [r for r in rows if r["seed"] == seed and r["method"] in STARTS]
        if len(own) < len(STARTS):
            return "-"
        if any(r["val_accuracy"] is None for r in own):
            return "unknown: no validation accuracy"
        chosen.append(max(own, key=lambda r: r["val_accuracy"]))
    return _recovered(chosen)


def _unseen(found: Rows) -> str:
    return f"{100 * _mean(found, 'unseen_mean'):.1f} ± {100 * _mean(found, 'unseen_std'):.1f}"


def over_seeds(rows: Rows, *axes: str) -> Rows:
    """A row for all that are equal in ``axes``: the first of them, with the means of their accuracies."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in axes), []).append(row)
    names = ("accuracy", "accuracy_ideal", "accuracy_moved")
    return [{**own[0], **{n: _mean(own, n) for n in names if n in own[0]}} for own in groups.values()]


def _mean(rows: Rows, name: str) -> float:
    return float(np.mean([r[name] for r in rows]))


def forgetting_table(rows: Rows) -> str:
    """After the last task: accuracy on each, bits stored and cells written; means over seeds."""
    parts = []
    for place in dict.fromkeys(r["job"].split()[1] for r in rows):
        own = [r for r in rows if r["job"].split()[1] == place]
        end = max(r["step"] for r in own)
        tasks = list(dict.fromkeys(r["task"] for r in own))
        lines = []
        for method in dict.fromkeys(r["method"] for r in own):
            last = [r for r in own if r["method"] == method and r["step"] == end]
            cells = [f"{100 * _mean([r for r in last if r['task'] == task], 'accuracy'):.1f}" for task in tasks]
            lines.append([method, *cells, *(f"{_mean(last, name):,.0f}" for name in ("stored_bits", "written_so_far"))])
        heads = ["after the last task", *(LABELS.get(t, t) for t in tasks), "bits stored", "cells written"]
        parts.append(table(heads, lines))
    return "\n".join(parts)


def picture(draw: Callable[[Any, Rows], None], rows: Rows) -> bytes:
    """A figure as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    draw(figure, rows)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def draw_front(figure: Any, rows: Rows) -> None:
    """Accuracy against mask bits, a panel a task; means over seeds."""
    rows = over_seeds(rows, "task", "method")
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    figure.set_size_inches(4.6 * len(tasks), 3.8)
    families = {"xbm": "XBM, rows", "xma": "XMA, bits"}
    others = dict.fromkeys(r["method"] for r in rows if r["method"].split()[0] not in families and r["mask_bits"])
    colours = dict(zip([*families, *others], COLOURS, strict=False))
    for axes, task in zip(np.atleast_1d(figure.subplots(1, len(tasks))), tasks, strict=True):
        own = [r for r in rows if r["task"] == task]
        for family, label in families.items():
            line = sorted((r for r in own if r["method"].startswith(f"{family} ")), key=lambda r: r["mask_bits"])
            bits, reached = [r["mask_bits"] for r in line], [100 * r["accuracy"] for r in line]
            axes.plot(bits, reached, "o-", color=colours[family], label=label)
            for r in line:
                axes.annotate(
                    r["method"].split()[-1],
                    (r["mask_bits"], 100 * r["accuracy"]),
                    (4, 4),
                    textcoords="offset points",
                    fontsize=7,
                )
        for r in own:
            if r["method"] in others:
                axes.plot(r["mask_bits"], 100 * r["accuracy"], "s", color=colours[r["method"]], label=r["method"])
            if r["method"] == "norm_only":
                axes.axhline(100 * r["accuracy"], color="#999999", ls="--", lw=1, label="norms only")
        axes.set(xscale="log", xlabel="mask bits", ylabel="test accuracy, %", title=LABELS.get(task, task))
        axes.grid(color="#DDDDDD", lw=0.5)
        axes.legend(fontsize=7, frameon=False)


def draw_chips(figure: Any, rows: Rows) -> None:
    """For each task and chip the accuracy of every arm, between that of the ideal chip and that of moved masks."""
    rows = over_seeds(rows, "task", "chip", "method")
    places = list(dict.fromkeys((r["task"], r["chip"]) for r in rows))
    arms = [a for a in dict.fromkeys(r["method"] for r in rows) if a != "moved"]
    figure.set_size_inches(1.6 + 1.5 * len(places), 4.2)
    axes = figure.subplots()
    for i, place in enumerate(places):
        own = {r["method"]: r for r in rows if (r["task"], r["chip"]) == place}
        moved = next(iter(own.values()))
        for level, style in ((moved["accuracy_ideal"], "-"), (moved["accuracy_moved"], ":")):
            axes.hlines(100 * level, i - 0.4, i + 0.4, color="#000000", ls=style, lw=1.2)
        for j, arm in ((j, a) for j, a in enumerate(arms) if a in own):
            x = i - 0.35 + 0.7 * j / max(len(arms) - 1, 1)
            axes.plot(
                x, 100 * own[arm]["accuracy"], "o", ms=5, color=COLOURS[j % len(COLOURS)], label=arm if i == 0 else None
            )
    axes.set_xticks(range(len(places)), [f"{LABELS.get(t, t)}\n{c}" for t, c in places], fontsize=8)
    axes.set(ylabel="test accuracy, %", ylim=(0, 100))
    axes.set_title("line: on the ideal chip; dotted: moved to this one", fontsize=8)
    axes.grid(axis="y", color="#DDDDDD", lw=0.5)
    figure.legend(fontsize=7, frameon=False, loc="outside right center")


def draw_forgetting(figure: Any, rows: Rows) -> None:
    """A panel a tested task: its accuracy after each task that was learned."""
    place = rows[0]["job"].split()[1]
    own = over_seeds([r for r in rows if r["job"].split()[1] == place], "task", "method", "step")
    tasks, methods = (list(dict.fromkeys(r[key] for r in own)) for key in ("task", "method"))
    after = list(dict.fromkeys(r["after"] for r in own))
    figure.set_size_inches(2.6 * len(tasks), 3.2)
    for axes, task in zip(figure.subplots(1, len(tasks), sharey=True), tasks, strict=True):
        for colour, method in zip(COLOURS, methods, strict=False):
            line = sorted((r["step"], 100 * r["accuracy"]) for r in own if (r["task"], r["method"]) == (task, method))
            axes.plot(*zip(*line, strict=True), "o-", color=colour, ms=4, label=method if task == tasks[0] else None)
        axes.set_title(LABELS.get(task, task), fontsize=9)
        axes.set_xticks(
            range(1, len(after) + 1), [LABELS.get(a, a) for a in after], rotation=30, ha="right", fontsize=7
        )
        axes.grid(color="#DDDDDD", lw=0.5)
    figure.supxlabel("after learning", fontsize=9)
    figure.supylabel("test accuracy, %", fontsize=9)
    figure.legend(fontsize=7, frameon=False, loc="outside right upper")
