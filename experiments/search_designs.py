"""Which arrays and converters to build: accuracy of ResNet-20 against the energy of an image, over a grid of designs.

Designs are of the chip `verified` (64 bit lines an array, 8-bit weights on differential pairs, 8-bit inputs at once,
on/off ratio 100, every cell written to 1 % of g_max) with other heights of arrays, cells, converter bits and ranges.
Each is one chip of the seed, read by the simulator on validation images and priced by `xbm.hardware.cost`; the front is
of those that no other beats in both, by each technology. Test images are read once, by designs on a front alone.

Command:   python -m experiments.search_designs --data FOLDER
           FOLDER holds cifar10.npz.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      20 to 30 seconds a design on one busy core, nearly all of it compilation, and a minute for ranges of a height
           that are measured anew; the 61 designs here half an hour.
Writes:    <out>/search_designs.json after every design; then its table and figure. Run again it carries on.

Expect:    the taller the arrays the cheaper an image, and six bits a conversion do where ranges are calibrated: 512
           rows, 6 bits: 90.6 % of the test images (float 91.3 %) at 0.48 uJ by survey-22nm; `verified` takes 1.05.
           Ranges of the worst case lose 20 to 56 points of the validation images at 6 bits and about one at 8 (7 is not
           measured). 2-bit cells take two to three times the energy and win nothing that 2,000 test images show.

Validation images are training images of the file that calibration does not see, the classes in proportion. The bundled
network was trained on them, so they order designs and say little of accuracy: that is what test images are for. One
chip and 500 images: the standard error of an accuracy of 98 % is 0.6 points, and designs nearer than that may change
places. How inputs drive word lines is measured once, on the base chip; all designs read the same 8-bit inputs. The
chip's wires are ideal, which favours tall arrays: what resistance takes of accuracy is in docs/crossbar.md. The two
technologies differ in the converter alone, and only the survey knows a converter's area: the other's is of cells.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from experiments.resume import read_records, write_records
from experiments.suite.pages import table
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import hardware, report
from xbm_jax.hardware import Design, Point
from xbm_jax.report.figure import FAINT, INK, figure_png, plain_axes
from xbm_jax.storage.files import replace_file

TECHNOLOGIES = ("survey-22nm", "neurosim-22nm")
BASE = xbm.spec_by_name("verified")
FLOAT = "float network"

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with cifar10.npz.
        out: folder for the results.
        images: validation images, of the training images.
        calibration_images: training images that converter ranges are measured on.
        test_images: at most so many, for designs on a front.
        seed: of the chip and of the choice of images.
        reprice: count the costs of designs that are there again, by the constants of today.
    """

    data: Path
    out: Path = Path("experiments/results")
    images: int = 500
    calibration_images: int = 128
    test_images: int = 2000
    seed: int = 0
    reprice: bool = False

    def __post_init__(self) -> None:
        for name in ("images", "calibration_images", "test_images"):
            if getattr(self, name) < 10:
                raise xbm.DataError(name, getattr(self, name), "at least 10")

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished designs to count."""
        counts = {name: getattr(self, name) for name in ("images", "calibration_images", "test_images", "seed")}
        return {"base": BASE, "technologies": TECHNOLOGIES, **counts}


def grid() -> list[Design]:
    """The designs, those that share compiled code and measurements behind one another."""
    parts: list[dict[str, Any]] = [
        *({"rows": (rows,), "adc_bits": (4, 5, 6, 7, 8), "per": ("layer", "tile")} for rows in (64, 128, 256)),
        {"rows": (512,), "adc_bits": (4, 5, 6, 7, 8)},
        *({"rows": (rows,), "cell_bits": (4,), "adc_bits": (4, 5, 6, 7)} for rows in (64, 128, 256)),
        *({"rows": (rows,), "cell_bits": (2,), "adc_bits": (4, 5, 6)} for rows in (128, 256)),
        *({"rows": (rows,), "adc_bits": (6, 8), "range": ("max",)} for rows in (64, 128, 256)),
        {"rows": (32,), "adc_bits": (5, 6)},
    ]
    return [design for part in parts for design in hardware.designs(base=BASE, **part)]


def main(config: Config) -> list[Record]:
    """Resume, measure what is missing, write."""
    console, path = Console(), config.out / "search_designs.json"
    data = load_source(config)
    records = {record["design"]: record for record in read_records(path, config.kept, "designs")}
    keep(config, path, records)  # a folder that cannot be written shows before the work, not after it
    if FLOAT not in records:
        records[FLOAT] = float_network(config, data)
    if config.reprice:
        for record in records.values():
            if record["design"] != FLOAT:
                design = design_of(record)
                chip = xbm.program(xbm.load_backbone("cifar-resnet20"), design.spec(BASE), jax.random.key(config.seed))
                record["costs"] = costs_of(config, chip, design, data.x_test[:1])
        keep(config, path, records)
    missing = [design for design in grid() if design.name not in records]
    for record in measured(config, data, missing):
        records[record["design"]] = record
        keep(config, path, records)
        console.print(f"{record['design']:50} {record['validation']:.1%}", highlight=False)
    for record in tested(config, data, [record for record in on_a_front(records) if record["test"] is None]):
        keep(config, path, records)
        console.print(f"{record['design']:50} {record['test']:.1%} of the test images", highlight=False)
    replace_file(path.with_suffix(".md"), page(records))
    replace_file(path.with_suffix(".png"), figure_png(lambda: draw(records)))
    return list(records.values())


def float_network(config: Config, data: xbm.Dataset) -> Record:
    """What no chip does better than by chance, on both sets of images."""
    backbone, accuracies = xbm.load_backbone("cifar-resnet20"), []
    for images, labels in (validation(config, data), test(config, data)):
        parts = [backbone.logits(images[i : i + 100]) for i in range(0, len(images), 100)]
        accuracies.append(float(np.mean(np.argmax(np.concatenate(parts), -1) == labels)))
    return {"design": FLOAT, "validation": accuracies[0], "test": accuracies[1], "costs": {}}


def measured(config: Config, data: xbm.Dataset, missing: Sequence[Design]) -> Iterator[Record]:
    """Accuracy on validation images and costs, a design after another."""
    images, labels = validation(config, data)
    for design, chip in chips(config, data, missing):
        accuracy = hardware.accuracy(chip, images, labels)
        parts, costs = dataclasses.asdict(design), costs_of(config, chip, design, images[:1])
        yield {"design": design.name, **parts, "validation": accuracy, "test": None, "costs": costs}


def costs_of(config: Config, chip: xbm.Chip, design: Design, inputs: Any) -> dict[str, dict[str, float]]:
    """Energy, time and area of a design's chip by each technology; it need not be calibrated."""
    found = {}
    for name in TECHNOLOGIES:
        technology = hardware.load_technology(name)
        point = hardware.priced(chip, design, 0.0, technology, inputs, base_activity(config))
        found[name] = {"joules": point.joules, "seconds": point.seconds, "m2": point.m2}
    return found


def tested(config: Config, data: xbm.Dataset, records: Sequence[Record]) -> Iterator[Record]:
    """The records with their chips' accuracy on test images."""
    by_name = {record["design"]: record for record in records}
    for design, chip in chips(config, data, [design_of(record) for record in records]):
        record = by_name[design.name]
        record["test"] = hardware.accuracy(chip, *test(config, data))
        yield record


def chips(config: Config, data: xbm.Dataset, choice: Sequence[Design]) -> Iterator[tuple[Design, xbm.Chip]]:
    """Each design's chip; compiled code of other arrays is let go, for memory."""
    seen, last = xbm.data.calibration_images(data, config.calibration_images, config.seed), None
    key = jax.random.key(config.seed)
    for design, chip in hardware.built(xbm.load_backbone("cifar-resnet20"), BASE, choice, seen, key):
        if last != (design.rows, design.cell_bits):
            jax.clear_caches()
        last = (design.rows, design.cell_bits)
        yield design, chip


@lru_cache(maxsize=1)
def base_activity(config: Config) -> hardware.Activity:
    """How images drive word lines, on the base chip."""
    data = load_source(config)
    chip = xbm.program(xbm.load_backbone("cifar-resnet20"), BASE, jax.random.key(config.seed))
    return hardware.measure_activity(chip, xbm.data.calibration_images(data, 64, config.seed))


@lru_cache(maxsize=1)
def load_source(config: Config) -> xbm.Dataset:
    """The user's file, checked against the backbone's classes and for enough images."""
    data = xbm.load(f"npz:{config.data / 'cifar10.npz'}")
    if data.num_classes > 10:
        raise xbm.DataError("--data", f"{data.num_classes} classes", "the 10 classes of CIFAR-10")
    least = config.images + config.calibration_images
    if len(data.y_train) < least:
        raise xbm.DataError("--data", f"{len(data.y_train)} training images", f"at least {least}")
    return data


def validation(config: Config, data: xbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Training images that calibration does not see, the classes in proportion."""
    seen = {x.tobytes() for x in xbm.data.calibration_images(data, config.calibration_images, config.seed)}
    unseen = np.array([i for i, x in enumerate(data.x_train) if x.tobytes() not in seen])
    chosen = unseen[xbm.data.stratified_sample(data.y_train[unseen], config.images, config.seed)]
    return data.x_train[chosen], data.y_train[chosen]


def test(config: Config, data: xbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """At most so many test images, the classes in proportion."""
    if config.test_images >= len(data.y_test):
        return data.x_test, data.y_test
    chosen = xbm.data.stratified_sample(data.y_test, config.test_images, config.seed)
    return data.x_test[chosen], data.y_test[chosen]


def keep(config: Config, path: Path, records: Mapping[str, Record]) -> None:
    """Replace search_designs.json in one step, a design a line."""
    write_records(path, report.run_context(config.kept, config.seed), records.values(), "designs")


def design_of(record: Record) -> Design:
    """What a record is of."""
    return Design(**{field.name: record[field.name] for field in dataclasses.fields(Design)})


def front(records: Mapping[str, Record], technology: str) -> list[Point]:
    """Designs that no other beats in accuracy on validation images and in energy."""
    made = [record for record in records.values() if record["costs"]]
    return hardware.pareto(
        [Point(design_of(r), r["validation"], **r["costs"][technology], technology=technology) for r in made]
    )


def on_a_front(records: Mapping[str, Record]) -> list[Record]:
    """Records on the front of any technology, in order of the first one's energy."""
    names = {point.design.name for technology in TECHNOLOGIES for point in front(records, technology)}
    found = [record for name, record in records.items() if name in names]
    return sorted(found, key=lambda record: record["costs"][TECHNOLOGIES[0]]["joules"])


def page(records: Mapping[str, Record]) -> str:
    """The fronts: a design a row; energies on whose front it stands are bold."""
    fronts = {name: {point.design.name for point in front(records, name)} for name in TECHNOLOGIES}
    heads = [
        "design",
        "validation, %",
        "test, %",
        *(f"{name}, µJ" for name in TECHNOLOGIES),
        "latency, µs",
        "area, mm²",
    ]
    lines = [_line(FLOAT, records[FLOAT], fronts), *(_line(r["design"], r, fronts) for r in on_a_front(records))]
    count = sum(1 for record in records.values() if record["costs"])
    note = (
        f"Designs of ResNet-20 on CIFAR-10 that none of the {count} beats in accuracy on validation images and in "
        "energy of an image; bold: by this technology. Latency, of a layer after another, and area, converters "
        f"included, are {TECHNOLOGIES[0]}'s. Test images are held out; on validation images the network was trained.\n"
    )
    return f"{table(heads, lines)}\n{note}"


def _line(name: str, record: Record, fronts: Mapping[str, set[str]]) -> list[str]:
    accuracies = [
        f"{100 * record[which]:.1f}" if record[which] is not None else "-" for which in ("validation", "test")
    ]
    if not record["costs"]:
        return [name, *accuracies, *["-"] * (len(TECHNOLOGIES) + 2)]
    joules = {t: f"{1e6 * record['costs'][t]['joules']:.3f}" for t in TECHNOLOGIES}
    energies = [f"**{text}**" if name in fronts[t] else text for t, text in joules.items()]
    first = record["costs"][TECHNOLOGIES[0]]
    return [name, *accuracies, *energies, f"{1e6 * first['seconds']:.0f}", f"{1e6 * first['m2']:.2f}"]


# Okabe and Ito (2008): told apart with any colour vision. Height by colour, cells and range by marker.
COLOURS = {32: "#56B4E9", 64: "#0072B2", 128: "#009E73", 256: "#E69F00", 512: "#D55E00"}
TICKS = (99.8, 99.5, 99, 98, 95, 90, 80, 50)
MARKERS = {"7-bit cells, per layer": "o", "per tile": "s", "worst case": "X", "4-bit cells": "^", "2-bit cells": "v"}


def draw(records: Mapping[str, Record]) -> Any:
    """A panel a technology: accuracy on validation images against energy, the front as a line, its bits beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 5.2), layout="constrained")
    panels = figure.subplots(1, len(TECHNOLOGIES), sharey=True)
    for axes, technology in zip(panels, TECHNOLOGIES, strict=True):
        _panel(axes, records, technology)
    panels[0].set_ylabel("accuracy on validation images, %", fontsize=9, color=INK)
    panels[0].legend(fontsize=8, frameon=False, loc="lower right", labelcolor=INK)
    _legend(figure)
    return figure


def _panel(axes: Any, records: Mapping[str, Record], technology: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    best = front(records, technology)
    for record in (r for r in records.values() if r["costs"]):
        joules, accuracy = record["costs"][technology]["joules"], record["validation"]
        on = any(point.design.name == record["design"] for point in best)
        style = {"marker": MARKERS[_kind(record)], "color": COLOURS[record["rows"]], "alpha": 1.0 if on else 0.45}
        style |= {"ms": 8, "mec": INK, "zorder": 4} if on else {"ms": 5.5, "mec": "white", "zorder": 3}
        axes.plot(1e6 * joules, _wrong(accuracy), ls="", mew=0.8, **style)
    steps = [(1e6 * point.joules, _wrong(point.accuracy)) for point in best]
    axes.plot(*zip(*steps, strict=True), color=INK, lw=1, drawstyle="steps-post", zorder=1, label="front")
    axes.axhline(_wrong(records[FLOAT]["validation"]), color="#777777", ls=":", lw=1.2, label=FLOAT)
    _bits(axes, best, steps)
    axes.set_title(technology, fontsize=10, color=INK)
    axes.set_xlabel("one image, µJ", fontsize=9, color=INK)
    axes.set(xscale="log", yscale="log", xlim=(0.88 * min(x for x, _ in steps), None), ylim=(80, 0.12))
    axes.set_yticks([100 - tick for tick in TICKS], [f"{tick:g}" for tick in TICKS])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=FAINT, lw=0.6)
    plain_axes(axes)


def _wrong(accuracy: float) -> float:
    """Wrong answers in per cent, for an axis on which one of many differs from none: of those at least 0.15."""
    return max(100 * (1 - accuracy), 0.15)


def _bits(axes: Any, best: Sequence[Point], steps: Sequence[tuple[float, float]]) -> None:
    """Converter bits beside the front's designs, left of each; where several stand in one place, of the first."""
    labelled: list[tuple[float, float]] = []
    for point, (x, y) in zip(best, steps, strict=True):
        if all(abs(x / other - 1) > 0.06 or abs(y / beside - 1) > 0.25 for other, beside in labelled):
            text, labelled = f"{point.design.adc_bits} bits", [*labelled, (x, y)]
            axes.annotate(text, (x, y), (-7, 2), textcoords="offset points", fontsize=7.5, color=INK, ha="right")


def _kind(record: Record) -> str:
    if record["range"] == "max":
        return "worst case"
    if record["cell_bits"] < 7:
        return f"{record['cell_bits']}-bit cells"
    return "per tile" if record["per"] == "tile" else "7-bit cells, per layer"


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    rows = [Line2D([], [], ls="", marker="o", ms=7, color=c, label=f"{r} rows") for r, c in COLOURS.items()]
    kinds = [Line2D([], [], ls="", marker=m, ms=6, mfc="white", mec=INK, label=k) for k, m in MARKERS.items()]
    handles = [handle for pair in zip(rows, kinds, strict=True) for handle in pair]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False, labelcolor=INK)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except xbm.XbmError as error:
        sys.exit(f"search_designs: {error}")
