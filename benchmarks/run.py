"""How fast it is: ratios to the plain XLA operation in the same process, with the goal and the best peer beside them.

Command:   make bench      (everything; ARGS="--only conv": a part of it, the rest stays; ARGS=--series: the figure too)
Hardware:  two CPU cores that do nothing else.
Time:      sixteen minutes; with --series twenty-one.
Writes:    benchmarks/latest.json, a list with one object per row; docs/figures/cost.png with --series.

A ratio is the median over interleaved rounds. Peers' ratios are to their own plain operation, measured by their own
means on other machines: an order of magnitude, not a race.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

import xbm_jax as xbm
from benchmarks import costs, layers, networks, serving
from benchmarks.series import draw, measure_series
from benchmarks.timing import interleaved
from xbm_jax.report import run_context
from xbm_jax.storage.files import replace_json

HERE = Path(__file__).resolve().parent
MOBILENET = {"model": "mobilenet-v2", "pixels": 112}
MOBILE = {**MOBILENET, "batch": 32}
MINILM = {"model": "minilm-l6", "pixels": 48}  # tokens, 32 sentences a batch
RESNET50 = {"model": "resnet50-v1", "pixels": 112}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what is measured, what it may be, and what the best peer has.

    ``measure`` gives ``{"ratio": ...}`` or, where the goal is a time or a size, ``{"seconds": ...}`` or
    ``{"gib": ...}``, and whatever explains it.
    """

    work: str
    goal: float
    peer: float | None
    measure: Callable[[], dict[str, float]]


def _ratio(make: Callable[[], tuple[Any, Any]], **options: Any) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        found = interleaved(*make(), **options)
        return {"ratio": found.ratio, "ours_ms": 1e3 * found.ours_seconds, "plain_ms": 1e3 * found.plain_seconds}

    return measure


def _seconds(measure: Callable[[], float]) -> Callable[[], dict[str, float]]:
    return lambda: {"seconds": measure()}


def _conv(channels: int, pixels: int, rows: int) -> Callable[[], dict[str, float]]:
    return _ratio(lambda: layers.reads(layers.conv_layer(layers.spec(rows), channels, pixels)))


def _folded(masked: bool) -> Callable[[], dict[str, float]]:
    return _ratio(lambda: layers.reads(layers.conv_layer(layers.spec(128, None), 64, 8), masked=masked))


def _dense(spec: xbm.CrossbarSpec) -> Callable[[], dict[str, float]]:
    return _ratio(lambda: layers.reads(layers.dense_layer(spec)))


def _lossless() -> tuple[Any, Any]:
    serial = layers.BITSERIAL.replace(cell=xbm.Cell(bits=2), adc=xbm.Adc(bits=10, range="granular"))
    layer = layers.conv_layer(serial, 64, 8)
    assert layer.tiles.plan.fold, layer.tiles.plan.fold_reason
    return layers.reads(layer, masked=False)


def _train(
    adc_bits: int | None, seconds: float = 12.0, rounds: int = 11, **network: Any
) -> Callable[[], dict[str, float]]:
    def measure() -> dict[str, float]:
        ours, plain = networks.mask_step(adc_bits, **network), networks.plain_step(**network)
        found = _ratio(lambda: (ours.run, plain.run), seconds=seconds, rounds=rounds)()
        return {**found, "peak_memory_ratio": ours.peak_bytes / plain.peak_bytes}

    return measure


def _images(pixels: int = 32, **network: Any) -> Callable[[], dict[str, float]]:
    return _ratio(lambda: (networks.step_images(pixels=pixels), networks.mask_step(8, pixels=pixels, **network).run))


def _memory(adc_bits: int | None) -> Callable[[], dict[str, float]]:
    return lambda: {"ratio": networks.mask_step(adc_bits).peak_bytes / networks.plain_step().peak_bytes}


def _gibibytes(**network: Any) -> dict[str, float]:
    return {"gib": networks.mask_step(8, **network).peak_bytes / 2**30}


def _eight_steps() -> dict[str, float]:
    return _ratio(networks.eight_steps, seconds=40.0, rounds=5)()


def _serving(make: Callable[..., tuple[Any, Any]], **network: Any) -> Callable[[], dict[str, float]]:
    return _ratio(partial(make, **network), seconds=20.0)


def _forward(adc_bits: int | None) -> tuple[Any, Any]:
    return networks.read_compiled(adc_bits).run, networks.plain_read().run


ROWS = (
    Row("dense 64 x 1152 x 256, 9 row tiles, 8-bit ADC", 1.2, 3.2, _dense(layers.spec(128))),
    Row("conv 64 channels 8x8, 128 rows, 8-bit ADC", 1.3, 4.1, _conv(64, 8, 128)),
    Row("conv 128 channels 8x8, 128 rows, 8-bit ADC", 1.3, 4.1, _conv(128, 8, 128)),
    Row("conv 64 channels 8x8, 64 rows, 8-bit ADC", 1.5, 4.1, _conv(64, 8, 64)),
    Row("conv 128 channels 8x8, 64 rows, 8-bit ADC", 1.5, 4.1, _conv(128, 8, 64)),
    Row("conv 256 channels 7x7, 64 rows, 8-bit ADC, 36 row tiles in a loop", 1.5, 4.1, _conv(256, 7, 64)),
    Row("conv 16 channels 32x32, 64 rows, 8-bit ADC", 2.0, 4.0, _conv(16, 32, 64)),
    Row("conv 32 channels 16x16, 64 rows, 8-bit ADC", 2.0, 4.0, _conv(32, 16, 64)),
    Row("ideal converter, conv 64 channels, without a mask", 1.05, 63.0, _folded(masked=False)),
    Row("ideal converter, conv 64 channels, masked", 1.05, 63.0, _folded(masked=True)),
    Row("ideal cells, lossless ADC, 8 cycles x 4 slices, conv 64 channels", 1.05, 63.0, _ratio(_lossless)),
    Row(
        "depthwise 3x3, 144 channels 28x28, 8-bit ADC",
        1.3,
        None,
        _ratio(lambda: layers.reads(layers.depthwise_layer(layers.spec(64), 144, 28))),
    ),
    Row("permuted row order, dense, to channel order", 1.05, None, _ratio(partial(layers.ordered, dense=True))),
    Row("permuted row order, conv 256 channels, to channel order", 1.05, None, _ratio(layers.ordered)),
    Row(
        "permuted row order, conv 256 channels, with gradients, to channel order",
        1.05,
        None,
        _ratio(partial(layers.ordered, gradient=True)),
    ),
    Row("bit-serial 8 cycles x 4 slices, 128 rows, 6-bit ADC, dense", 36.0, 252.0, _dense(layers.BITSERIAL)),
    Row("ResNet-20 forward, ideal converter", 1.05, 63.0, _ratio(lambda: _forward(None))),
    Row("ResNet-20 forward, 64 rows, 8-bit ADC", 1.5, None, _ratio(lambda: _forward(8))),
    Row("ResNet-20 mask training step, ideal converter", 1.05, 2.4, _train(None)),
    Row("ResNet-20 mask training step, 8-bit ADC", 1.3, 2.4, _train(8)),
    Row("ResNet-20 mask training step, 8-bit ADC: peak memory", 2.0, None, _memory(8)),
    Row("MobileNetV2 112 px mask training step, ideal converter", 1.05, None, _train(None, 40.0, **MOBILENET)),
    Row("MobileNetV2 112 px mask training step, 8-bit ADC", 1.3, None, _train(8, 40.0, **MOBILENET)),
    Row("MobileNetV2 112 px mask training step, 8-bit ADC: GiB", 3.0, None, partial(_gibibytes, **MOBILENET)),
    Row("ResNet-50 112 px mask training step, ideal converter", 1.05, None, _train(None, 40.0, 5, **RESNET50)),
    Row("ResNet-50 112 px mask training step, 8-bit ADC", 1.3, None, _train(8, 40.0, 5, **RESNET50)),
    Row("MiniLM-L6 48 tokens mask training step, ideal converter", 1.1, None, _train(None, 40.0, 5, **MINILM)),
    Row("MiniLM-L6 48 tokens mask training step, 8-bit ADC", 1.4, None, _train(8, 40.0, 5, **MINILM)),
    Row("MiniLM-L6 48 tokens mask training step, 8-bit ADC: GiB", 3.0, None, partial(_gibibytes, **MINILM)),
    Row("ResNet-20 step's images, decoded and augmented, to the step", 0.33, None, _images()),
    Row("MobileNetV2 112 px step's images, decoded and augmented, to the step", 0.33, None, _images(**MOBILENET)),
    Row("eight tasks' mask training steps vmapped, to eight steps", 0.95, None, _eight_steps),
    Row("read noise, conv 64 channels, per read", 2.0, 890.0, _ratio(layers.noisy_read)),
    Row(
        "wires, conv 64 channels, per read, to the read without",
        1.0,
        7400.0,
        _ratio(layers.wired, seconds=8.0, rounds=31),
    ),
    Row("eight task masks in one pass, to one", 1.25, None, _ratio(layers.eight_masks)),
    Row(
        "programming ResNet-20 with wires, 64x64: seconds",
        10.0,
        None,
        _seconds(lambda: networks.program_seconds(wires=True)),
    ),
    Row("compiling ResNet-20's read: seconds", 8.0, None, _seconds(lambda: networks.read_compiled().compile_seconds)),
    Row(
        "compiling ResNet-20's training step: seconds",
        20.0,
        None,
        _seconds(lambda: networks.mask_step(8).compile_seconds),
    ),
    Row(
        "compiling ResNet-50's training step: seconds",
        60.0,
        None,
        _seconds(lambda: networks.mask_step(8, **RESNET50).compile_seconds),
    ),
    Row("ten costs of ResNet-50 with a column mask, one after another: seconds", 0.2, None, _seconds(costs.ten_costs)),
    Row("the first cost of ResNet-50, nothing compiled before: seconds", 0.5, None, _seconds(costs.first_cost)),
    Row(
        "cost of ResNet-50 by 1,000 technologies in one vmapped call, once compiled: seconds",
        1.0,
        None,
        costs.thousand_technologies,
    ),
    Row("serving, ResNet-20: a batch of eight tasks, to predict", 1.2, None, _serving(serving.mixed_batch)),
    Row("serving, ResNet-20: a batch of one task, to predict", 1.05, None, _serving(serving.single_task)),
    Row(
        "serving, MobileNetV2 112 px: a batch of eight tasks, to predict",
        1.2,
        None,
        _serving(serving.mixed_batch, **MOBILE),
    ),
    Row(
        "serving, MobileNetV2 112 px: a batch of one task, to predict",
        1.05,
        None,
        _serving(serving.single_task, **MOBILE),
    ),
    Row("serving, ResNet-20: a thousand times from one task to another: seconds", 1.0, None, serving.switching),
    Row("serving, ResNet-20: memory of 100 tasks, to their values", 1.2, None, serving.resident_memory),
    Row(
        "serving, MobileNetV2: memory of 100 tasks, to their values",
        1.2,
        None,
        partial(serving.resident_memory, **MOBILE),
    ),
    Row("xbm predict, one image, all compiled before: seconds", 3.0, None, _seconds(serving.cold_start)),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        only: measure the rows whose name contains this.
        series: also measure how cost grows with rows, ADC bits, batch and depth, and draw it.
        out: where the rows are written; with `only` the other rows that it holds stay.
    """

    only: str = ""
    series: bool = False
    out: Path = HERE / "latest.json"


def main(config: Config) -> None:
    console = Console()
    machine, rows = _machine(), []
    for row in ROWS:
        if config.only in row.work:
            rows.append(_measured(row) | machine)
            console.print(_line(rows[-1]))
    if config.only and config.out.exists():
        rows += json.loads(config.out.read_text(encoding="utf-8"))
    found = {row["work"]: row for row in reversed(rows)}
    rows = [found[row.work] for row in ROWS if row.work in found]
    _write(config.out, rows)
    console.print(table(rows))
    if config.series:
        series = measure_series()
        _write(HERE / "series.json", {"series": series} | machine)
        draw(series, HERE.parent / "docs" / "figures" / "cost.png")


def _measured(row: Row) -> dict[str, Any]:
    found = {name: round(value, 3) for name, value in row.measure().items()}
    value = found.get("ratio", found.get("seconds", found.get("gib")))
    assert value is not None
    met = round(value, 2) <= row.goal
    return {"work": row.work, "ratio": found.get("ratio"), "goal": row.goal, "peer": row.peer, "met": met} | found


def _machine() -> dict[str, Any]:
    context = run_context({}, seed=0)
    return {"machine": {**context["device"], "cpus": context["cpus"]}, "versions": context["versions"]}


def _write(path: Path, content: Any) -> None:
    replace_json(path, content)


def _line(row: dict[str, Any]) -> str:
    return f"{row['work']:66s} {_value(row):>8s}   goal {row['goal']:g}   {'met' if row['met'] else 'MISSED'}"


def _value(row: dict[str, Any]) -> str:
    if row["ratio"] is not None:
        return f"{row['ratio']:.2f}"
    return f"{row['seconds']:.1f} s" if "seconds" in row else f"{row['gib']:.2f} GiB"


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table."""
    made = Table("work", "ratio", "goal", "best peer", "met")
    for row in rows:
        peer = "-" if row["peer"] is None else f"{row['peer']:g}"
        made.add_row(row["work"], _value(row), f"{row['goal']:g}", peer, "yes" if row["met"] else "no")
    return made


if __name__ == "__main__":
    main(tyro.cli(Config))
