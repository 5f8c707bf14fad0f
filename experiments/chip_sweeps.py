"""What each property of a chip does to a network: one figure and one table a property, all from one command.

CIFAR-10 on the bundled ResNet-20, source task, no training. The base chip has 64-row arrays of 64 bit lines, 8-bit
weights on one differential pair of 7-bit cells (on/off ratio 100), 8-bit inputs at once, one 8-bit converter a column
with a range calibrated per layer. Each sweep changes one property of it; FIXED below says what else it holds.

Command:   python -m experiments.chip_sweeps --source-data cifar10.npz            (or: make sweeps DATA=cifar10.npz)
           --source-data: an .npz with x_train, y_train, x_test, y_test (uint8, 32x32x3); the figures here are of 2,000
           test images. --sweeps adc_bits rows runs these alone.
Hardware:  two CPU cores; a GPU or TPU is used where JAX has one.
Time:      70 minutes of CPU time, a third of it for the bit-serial panel of adc_bits; much of the rest is compilation.
           Run in pieces on two cores that other jobs kept busy, two hours by the clock.
Writes:    <out>/chip_sweeps.json after every point; then <out>/figures/*.png and <out>/tables/*.md. Run again it
           carries on from the points that are there. Other settings need another --out.

Expect:    float 91.3 %, base chip with ideal cells 91.0 %; what moves it is in docs/tables and docs/crossbar.md.

Accuracy is measured on test images. Input scales came with the weights; converter ranges did too for the base chip's
kind of column (64 rows, 7-bit cells, 8-bit inputs); all others are measured on training images, on a chip of ideal
cells (`xbm.tasks.design`). Points of ideal cells are one chip and all test images (250 in the bit-serial panel). Points
with random draws are several chips (keys 0, 1, ... of the seed, the same in every point) on the same stratified subset:
their spread is that between chips; the standard error of the subset, sqrt(p (1 - p) / n), is common to all of them, 1.4
points at p = 91 % and n = 400.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import numpy as np
import tyro
from experiments.resume import read_records, write_records
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.crossbar import PcmJoshi, ReramWan
from xbm_jax.crossbar.primitives.adc import AdcRange, snapped_range
from xbm_jax.storage.files import replace_file

Sweep = Literal["adc_bits", "rows", "cell_bits", "on_off", "sigma", "wires", "stuck", "time"]

BASE = xbm.CrossbarSpec(rows=64, cols=64, cell=xbm.Cell(bits=7, on_off=100.0), adc=xbm.Adc(bits=8))
SERIAL = xbm.CrossbarSpec(rows=128, cols=128, dac_bits=1, cell=xbm.Cell(bits=2, on_off=100.0), adc=xbm.Adc(bits=8))
LIMIT_BITS = 16  # so fine a grid that its ends are the measured percentiles

HOUR, DAY = 3600.0, 86_400.0

FIXED: Mapping[str, str] = {
    "adc_bits": "Ideal cells. Left: the base chip. Right: inputs one bit at a time and 2-bit cells on 128 x 128 arrays "
    "(ISAAC's), 32 conversions a weight column and tile; there one level a step (granular) is a range that fits: the "
    "largest possible sum of a column is 384 steps, so 10 bits are lossless.",
    "rows": "The base chip with ideal cells; ranges calibrated for each height.",
    "cell_bits": "The base chip with ideal cells, and with a programming error of 3 % of g_max; every slice has an "
    "8-bit conversion of its own, with its own calibrated range.",
    "on_off": "The base chip with a programming error of 1 % of g_max; and offset encoding (one 8-bit cell a weight, "
    "the current of g_min taken off digitally after the converter) with ideal cells.",
    "sigma": "The base chip with a Gaussian programming error, of the same size at every level or in proportion to it.",
    "wires": "The base chip with ideal cells of g_max = 100 uS; the same resistance in word and bit lines; ranges of "
    "ideal wires, or measured again with the wires in place.",
    "stuck": "The base chip with cells stuck at g_max (on) or g_min (off), otherwise ideal.",
    "time": "The base chip with PCM (Joshi 2020, aihwkit's fit; programming error, drift and read noise) or ReRAM "
    "(Wan 2022, aihwkit's fit); ranges are those of ideal cells. Compensation is one digital factor a layer.",
}

AXES: Mapping[str, tuple[str, str]] = {
    "adc_bits": ("converter resolution, bits", "linear"),
    "rows": ("rows of an array", "log"),
    "cell_bits": ("bits of a cell", "linear"),
    "on_off": ("on/off ratio, g_max / g_min", "log"),
    "sigma": ("programming error, % of g_max (or of g)", "symlog"),
    "wires": ("resistance of a wire segment, ohm", "symlog"),
    "stuck": ("share of stuck cells, %", "symlog"),
    "time": ("time after programming", "log"),
}
TIMES = {1.0: "1 s", HOUR: "1 h", DAY: "1 d", 30 * DAY: "30 d", 365 * DAY: "1 y"}

LINEAR_UP_TO = {"sigma": 0.5, "wires": 0.1, "stuck": 0.1}  # where an axis that shows zero too turns logarithmic


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        source_data: .npz of the task that the backbone was pretrained on (CIFAR-10).
        out: folder for chip_sweeps.json, figures/ and tables/.
        sweeps: which to run.
        images: test images of a point with ideal cells, at most those that there are.
        serial_images: test images of a bit-serial point, which costs some 20 times as much.
        chip_images: test images of a point of several chips.
        chips: chips of a point of `sigma`.
        few_chips: chips of a point of every other sweep with random draws.
        calibration_images: training images that converter ranges are measured on.
        seed: of chips and of the choice of images.
    """

    source_data: Path
    out: Path = Path("docs")
    sweeps: tuple[Sweep, ...] = get_args(Sweep)
    images: int = 2000
    serial_images: int = 250
    chip_images: int = 400
    chips: int = 20
    few_chips: int = 6
    calibration_images: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("images", "serial_images", "chip_images", "calibration_images"):
            if getattr(self, name) < 10:
                raise xbm.DataError(name, getattr(self, name), "at least 10")
        for name in ("chips", "few_chips"):
            if getattr(self, name) < 2:
                raise xbm.DataError(name, getattr(self, name), "at least 2, for a spread")

    @property
    def kept(self) -> dict[str, Any]:
        """What has to be the same for finished points to count, and cannot be seen in them."""
        return {"calibration_images": self.calibration_images, "seed": self.seed, "base": BASE, "serial": SERIAL}


@dataclasses.dataclass(frozen=True)
class Point:
    """One accuracy to measure: where it stands in its figure, and the chip.

    ``ranges``: the spec whose converter ranges the chip gets, for a chip of ideal cells; else its design's own.
    ``chips``: 1 for ideal cells, 0 for the float network.
    """

    sweep: Sweep
    series: str
    x: float
    images: int
    chips: int = 1
    panel: str = ""
    spec: xbm.CrossbarSpec = BASE
    ranges: xbm.CrossbarSpec | None = None
    t_seconds: float | None = None
    compensate: bool = False

    @property
    def name(self) -> tuple[str, str, str, float]:
        """Where it stands: a point has one value."""
        return self.sweep, self.panel, self.series, self.x


def points(config: Config) -> Iterator[Point]:
    """Every point of the chosen sweeps, those that share compiled code behind one another."""
    makers = {"adc_bits": adc_bits, "rows": rows, "cell_bits": cell_bits, "on_off": on_off}
    makers |= {"sigma": sigma, "wires": wires, "stuck": stuck, "time": time_after}
    for sweep in config.sweeps:
        yield from makers[sweep](config)


def adc_bits(config: Config) -> Iterator[Point]:
    """Three range modes; bits outside, since modes differ in their grids alone and share compiled code."""
    machines = (("64 rows, 8-bit DAC, 7-bit cells", BASE, config.images, ("calibrated", "max")),)
    machines += (("128 rows, 1-bit DAC, 2-bit cells", SERIAL, config.serial_images, ("calibrated", "max", "granular")),)
    for panel, machine, images, modes in machines:
        yield Point("adc_bits", "float network", 0, images, 0, panel)
        for bits in range(4, 11):
            spec = machine.replace(adc=xbm.Adc(bits=bits))
            for mode in modes:
                ranges = machine.replace(adc=xbm.Adc(bits=bits, range=mode))
                yield Point("adc_bits", mode, bits, images, 1, panel, spec, ranges)


def rows(config: Config) -> Iterator[Point]:
    """Array heights, under two converters."""
    yield Point("rows", "float network", 0, config.images, 0)
    for count in (16, 32, 64, 128, 256, 512):
        for bits in (8, 6):
            spec = BASE.replace(rows=count, adc=xbm.Adc(bits=bits))
            yield Point("rows", f"{bits}-bit converter", count, config.images, spec=spec, ranges=spec)


def cell_bits(config: Config) -> Iterator[Point]:
    """Cells that give 7, 4, 2 and 1 slices."""
    yield Point("cell_bits", "float network", 0, config.images, 0)
    for bits in (1, 2, 4, 7):
        spec = BASE.replace(cell=xbm.Cell(bits=bits, on_off=100.0))
        yield Point("cell_bits", "ideal cells", bits, config.images, spec=spec, ranges=spec)
        written = spec.replace(device=xbm.Gaussian(0.03))
        yield Point("cell_bits", "error 3 % of g_max", bits, config.chip_images, config.few_chips, spec=written)


def on_off(config: Config) -> Iterator[Point]:
    """How far cells close."""
    yield Point("on_off", "float network", 0, config.images, 0)
    for ratio in (1.5, 2.0, 5.0, 10.0, 100.0):
        pair = BASE.replace(cell=xbm.Cell(bits=7, on_off=ratio), device=xbm.Gaussian(0.01))
        yield Point("on_off", "pair, error 1 % of g_max", ratio, config.chip_images, config.few_chips, spec=pair)
        single = BASE.replace(encoding="offset", cell=xbm.Cell(bits=8, on_off=ratio))
        yield Point("on_off", "offset, ideal cells", ratio, config.images, spec=single, ranges=single)


def sigma(config: Config) -> Iterator[Point]:
    """Gaussian programming error."""
    yield Point("sigma", "float network", 0, config.chip_images, 0)
    yield Point("sigma", "of g_max", 0, config.chip_images, ranges=BASE)
    for percent in (0.5, 1.0, 2.0, 3.0, 5.0, 10.0):
        spec = BASE.replace(device=xbm.Gaussian(percent / 100))
        yield Point("sigma", "of g_max", percent, config.chip_images, config.chips, spec=spec)
        relative = BASE.replace(device=xbm.Gaussian(percent / 100, relative_to="g"))
        if percent >= 3:
            yield Point("sigma", "of g", percent, config.chip_images, config.few_chips, spec=relative)


def wires(config: Config) -> Iterator[Point]:
    """Resistance of word and bit lines."""
    yield Point("wires", "float network", 0, config.images, 0)
    for ohms in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0):
        spec = BASE.replace(wires=xbm.Wires(ohms, ohms))
        for series, ranges in (("ranges of ideal wires", BASE), ("ranges measured again", spec)):
            yield Point("wires", series, ohms, config.images, spec=spec, ranges=ranges)


def stuck(config: Config) -> Iterator[Point]:
    """Cells that cannot be written."""
    yield Point("stuck", "float network", 0, config.chip_images, 0)
    for series in ("stuck off", "stuck on"):
        yield Point("stuck", series, 0, config.chip_images, ranges=BASE)
    for percent in (0.1, 0.3, 1.0, 2.0, 5.0):
        for series, faults in (
            ("stuck off", xbm.crossbar.Faults(stuck_off=percent / 100)),
            ("stuck on", xbm.crossbar.Faults(stuck_on=percent / 100)),
        ):
            spec = BASE.replace(faults=faults)
            yield Point("stuck", series, percent, config.chip_images, config.few_chips, spec=spec)


def time_after(config: Config) -> Iterator[Point]:
    """Drift. Times share compiled code."""
    yield Point("time", "float network", 0, config.chip_images, 0)
    series = (("PCM", PcmJoshi(), False), ("PCM, compensated", PcmJoshi(), True), ("ReRAM", ReramWan(), False))
    for name, device, compensate in series:
        for t in TIMES:
            spec, few = BASE.replace(device=device), config.few_chips
            yield Point("time", name, t, config.chip_images, few, "", spec, None, t, compensate)


def main(config: Config) -> list[dict[str, Any]]:
    """Resume, measure what is missing, write; in this order."""
    console, path = Console(), config.out / "chip_sweeps.json"
    data = load_source(config)
    finished = read_finished(config, path)
    keep(config, path, finished)  # a folder that cannot be written shows before the work, not after it
    for point in points(config):
        record = finished.get(point.name)
        if record is None or not as_asked(record, point, len(data.y_test)):
            record = finished[point.name] = measure(config, data, point)
            keep(config, path, finished)
        spread = "" if record["std"] is None else f" +- {100 * record['std']:.1f}"
        console.print(f"{' '.join(map(str, point.name)):60} {100 * record['mean']:5.1f}{spread}", highlight=False)
    for sweep in dict.fromkeys(record["sweep"] for record in finished.values()):
        own = [record for record in finished.values() if record["sweep"] == sweep]
        replace_file(config.out / "tables" / f"{sweep}.md", table(sweep, own))
        draw(sweep, own, config.out / "figures" / f"{sweep}.png")
    return list(finished.values())


def as_asked(record: Mapping[str, Any], point: Point, available: int) -> bool:
    """Whether a finished point has the chips and images that are asked for now."""
    return (record["chips"], record["images"]) == (point.chips, min(point.images, available))


def measure(config: Config, data: xbm.Dataset, point: Point) -> dict[str, Any]:
    """One point, as JSON values: mean, standard deviation between chips (or none), and each chip's accuracy."""
    images, labels = test_images(config, data, point.images)
    backbone = xbm.load_backbone("cifar-resnet20")
    if point.chips == 0:
        batches = [images[i : i + 250] for i in range(0, len(images), 250)]
        predicted = np.concatenate([np.argmax(backbone.logits(batch), -1) for batch in batches])
        accuracies = np.asarray([np.mean(predicted == labels)])
    elif point.ranges is not None:
        chip = on_ranges(xbm.program(backbone, point.spec, jax.random.key(config.seed)), ranges_of(config, point))
        predicted = np.argmax(xbm.predict(chip, xbm.source_task(chip), images), -1)
        accuracies = np.asarray([np.mean(predicted == labels)])
    else:
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(config.seed), i))(np.arange(point.chips))
        options = {"t_seconds": point.t_seconds, "compensate": point.compensate}
        calibration = calibration_images(config)
        accuracies = xbm.population_accuracy(
            backbone, point.spec, keys, images, labels, calibration_images=calibration, **options
        ).accuracies
    found = xbm.Population(accuracies)
    sweep, panel, series, x = point.name
    return {
        "sweep": sweep,
        "panel": panel,
        "series": series,
        "x": x,
        "images": len(labels),
        "chips": point.chips,
        "mean": found.mean,
        "std": None if math.isnan(found.std) else found.std,
        "accuracies": [float(a) for a in found.accuracies],
    }


def ranges_of(config: Config, point: Point) -> dict[str, AdcRange]:
    """The converter grids of ``point.ranges``, by layer."""
    spec = point.ranges
    assert spec is not None and spec.adc.bits is not None
    if spec.adc.range != "calibrated":
        known = xbm.program(xbm.load_backbone("cifar-resnet20"), spec, jax.random.key(config.seed))
        return {path: tiles.adc for path, tiles in known.tiles.items() if tiles.adc is not None}
    limits = measured_limits(config, spec.replace(adc=xbm.Adc(bits=LIMIT_BITS)))
    return {path: snapped_range(low, high, spec.adc.bits) for path, (low, high) in limits.items()}


@lru_cache
def measured_limits(config: Config, spec: xbm.CrossbarSpec) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Lowest and highest sum that a calibrated range of each layer covers."""
    chip = xbm.tasks.design(xbm.load_backbone("cifar-resnet20"), spec, calibration_images(config))
    if not spec.wires.ideal:  # ranges that came with the weights are those of ideal wires
        chip = xbm.models.measure_ranges(chip, calibration_images(config))
    ends = {}
    for path, tiles in chip.tiles.items():
        assert tiles.adc is not None
        low, top = tiles.adc.min_code, tiles.adc.min_code + 2**LIMIT_BITS - 1
        ends[path] = (tiles.adc.lsb * low, tiles.adc.lsb * top)
    return ends


def on_ranges(chip: xbm.Chip, ranges: dict[str, AdcRange]) -> xbm.Chip:
    """The chip with other converter ranges: data, not structure, so that compiled code is shared."""
    return chip.replace(tiles={path: tiles.replace(adc=ranges[path]) for path, tiles in chip.tiles.items()})


@lru_cache(maxsize=1)
def load_source(config: Config) -> xbm.Dataset:
    """The user's file, checked against the backbone's classes."""
    data = xbm.load(f"npz:{config.source_data}")
    if data.num_classes > 10:
        raise xbm.DataError("--source-data", f"{data.num_classes} classes", "the 10 classes of CIFAR-10")
    return data


def test_images(config: Config, data: xbm.Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``count`` test images and their labels, the classes in proportion; the same whenever asked."""
    if count >= len(data.y_test):
        return data.x_test, data.y_test
    chosen = xbm.data.stratified_sample(data.y_test, count, config.seed)
    return data.x_test[chosen], data.y_test[chosen]


@lru_cache(maxsize=1)
def calibration_images(config: Config) -> np.ndarray:
    """Training images."""
    return xbm.data.calibration_images(load_source(config), config.calibration_images, config.seed)


def read_finished(config: Config, path: Path) -> dict[tuple, dict[str, Any]]:
    """The points of an earlier run of the same settings; a run of other settings is not written over."""
    return {(r["sweep"], r["panel"], r["series"], r["x"]): r for r in read_records(path, config.kept, "points")}


def keep(config: Config, path: Path, finished: dict[tuple, dict[str, Any]]) -> None:
    """Replace chip_sweeps.json in one step, a point a line."""
    write_records(path, report.run_context(config.kept, config.seed), finished.values(), "points")


def table(sweep: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy in per cent, a row for each value, a column for each series; mean and standard deviation of chips."""
    columns = list(dict.fromkeys((r["panel"], r["series"]) for r in records if r["chips"]))
    values = sorted({r["x"] for r in records if r["chips"]})
    cells = {(r["panel"], r["series"], r["x"]): _text(r) for r in records}
    heads = [f"{panel}: {series}" if panel else series for panel, series in columns]
    lines = [FIXED[sweep], "", _facts(records), ""]
    lines.append(f"| {AXES[sweep][0]} | {' | '.join(heads)} |")
    lines.append(f"| ---: |{' ---: |' * len(heads)}")
    lines += [
        f"| {_value(sweep, x)} | {' | '.join(cells.get((*column, x), '-') for column in columns)} |" for x in values
    ]
    return "\n".join(lines) + "\n"


def _value(sweep: str, x: float) -> str:
    return TIMES[x] if sweep == "time" else f"{x:g}"


def _text(record: Mapping[str, Any]) -> str:
    spread = "" if record["std"] is None else f" ± {100 * record['std']:.1f}"
    return f"{100 * record['mean']:.1f}{spread}"


def _facts(records: Sequence[Mapping[str, Any]]) -> str:
    """Images and chips behind the numbers, and what the float network has on the same images."""
    facts = []
    for r in records:
        if not r["chips"]:
            panel = f" ({r['panel']})" if r["panel"] else ""
            facts.append(f"float network {100 * r['mean']:.1f} % on {r['images']:,} images{panel}")
    measured = [r for r in records if r["chips"]]
    for chips, images in dict.fromkeys((r["chips"], r["images"]) for r in measured):
        series = list(dict.fromkeys(r["series"] for r in measured if (r["chips"], r["images"]) == (chips, images)))
        kind = "one chip" if chips == 1 else f"mean ± standard deviation of {chips} chips"
        facts.append(f"{kind} on {images:,} images ({', '.join(series)})")
    return "Test accuracy, %: " + "; ".join(dict.fromkeys(facts)) + "."


# Okabe and Ito (2008): told apart with any colour vision.
COLOURS, MARKERS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7"), ("o", "s", "^", "D")


def draw(sweep: str, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy against the swept property, a line a series, a bar of one standard deviation between chips each way."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(r["panel"] for r in records))
    figure = Figure(figsize=(1.2 + 3.6 * len(panels) + (1.0 if len(panels) == 1 else 0), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _panel(axis, sweep, [r for r in records if r["panel"] == panel], _limits(records))
        axis.set_title(panel, fontsize=9)
    axes[0].set_ylabel("CIFAR-10 test accuracy, %", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    replace_file(path, buffer.getvalue())


def _limits(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Per cent; from zero where accuracies fall low, else no more than shows them and their bars."""
    low = 100 * min(r["mean"] - (r["std"] or 0) for r in records)
    high = 100 * max(r["mean"] + (r["std"] or 0) for r in records)
    return (0 if low < 30 else 5 * math.floor(low / 5 - 0.5)), 5 * math.ceil(high / 5 + 0.2)


def _panel(axis: Any, sweep: str, records: Sequence[Mapping[str, Any]], limits: tuple[float, float]) -> None:
    label, scale = AXES[sweep]
    named = list(dict.fromkeys(r["series"] for r in records if r["chips"]))
    for series, colour, marker in zip(named, COLOURS, MARKERS, strict=False):
        own = sorted((r for r in records if r["series"] == series), key=lambda r: r["x"])
        x, y = [r["x"] for r in own], [100 * r["mean"] for r in own]
        bars = [100 * (r["std"] or 0) for r in own] if any(r["std"] for r in own) else None
        axis.errorbar(x, y, bars, color=colour, marker=marker, ms=4.5, lw=1.3, capsize=3, label=series)
    for r in records:
        if not r["chips"]:
            axis.axhline(100 * r["mean"], color="#777777", ls=":", lw=1.2, label="float network")
    axis.set_xscale(scale, **({"linthresh": LINEAR_UP_TO[sweep]} if scale == "symlog" else {}))
    if scale == "symlog":
        axis.set_xlim(-0.15 * LINEAR_UP_TO[sweep], 1.25 * max(r["x"] for r in records))
    ticks = sorted({r["x"] for r in records if r["chips"]})
    axis.set_xticks(ticks, [_value(sweep, x) for x in ticks])
    axis.minorticks_off()
    axis.set_xlabel(label, fontsize=9)
    axis.set_ylim(*limits)
    axis.tick_params(labelsize=8)
    axis.grid(color="#E3E3E3", lw=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    try:
        main(tyro.cli(Config, description=__doc__))
    except xbm.XbmError as error:
        raise SystemExit(f"chip_sweeps: {error}") from None
