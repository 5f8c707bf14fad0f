"""The rows of ``make bench``: what is measured, its goal, and what the best peer has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import xbm_jax as xbm
from benchmarks import costs, layers, networks, serving
from benchmarks.programs import Program
from benchmarks.timing import interleaved

__all__ = ["ROWS", "Measured", "Row"]

MOBILENET = {"model": "mobilenet-v2", "pixels": 112}
MOBILE = {**MOBILENET, "batch": 32}
MINILM = {"model": "minilm-l6", "pixels": 48}  # tokens, 32 sentences a batch
RESNET50 = {"model": "resnet50-v1", "pixels": 112}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a row is found to be.

    Attributes:
        kind: ``"ratio"`` to the plain operation, ``"seconds"`` or ``"gib"``.
        rounds: the value, round by round; one round of what does not vary.
        more: numbers that explain it.
        programs: ours and the plain one, where both are known: for a roofline.
    """

    kind: str
    rounds: Sequence[float]
    more: Mapping[str, float] = dataclasses.field(default_factory=dict)
    programs: tuple[Program, Program] | None = None


Measure = Callable[[], Measured]


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what is measured, what it may be at the median, and what the best peer has."""

    work: str
    goal: float
    peer: float | None
    measure: Measure


def _ratio(make: Callable[[], tuple[Any, Any]], more: Mapping[str, float] | None = None, **options: Any) -> Measure:
    def measure() -> Measured:
        ours, plain = make()
        found = interleaved(ours, plain, **options)
        times = {"ours_ms": 1e3 * found.ours_seconds, "plain_ms": 1e3 * found.plain_seconds}
        both = isinstance(ours, Program) and isinstance(plain, Program)
        return Measured("ratio", found.rounds, {**times, **(more or {})}, (ours, plain) if both else None)

    return measure


def _seconds(measure: Callable[[], Sequence[float]]) -> Measure:
    return lambda: Measured("seconds", measure())


def _once(kind: str, measure: Callable[[], float]) -> Measure:
    """What does not vary: bytes."""
    return lambda: Measured(kind, [measure()])


def _conv(channels: int, pixels: int, rows: int) -> Measure:
    return _ratio(lambda: layers.reads(layers.conv_layer(layers.spec(rows), channels, pixels)))


def _folded(masked: bool) -> Measure:
    return _ratio(lambda: layers.reads(layers.conv_layer(layers.spec(128, None), 64, 8), masked=masked))


def _dense(spec: xbm.CrossbarSpec) -> Measure:
    return _ratio(lambda: layers.reads(layers.dense_layer(spec)))


def _lossless() -> tuple[Any, Any]:
    serial = layers.BITSERIAL.replace(cell=xbm.Cell(bits=2), adc=xbm.Adc(bits=10, range="granular"))
    layer = layers.conv_layer(serial, 64, 8)
    assert layer.tiles.plan.fold, layer.tiles.plan.fold_reason
    return layers.reads(layer, masked=False)


def _train(adc_bits: int | None, seconds: float = 12.0, rounds: int = 12, **network: Any) -> Measure:
    def measure() -> Measured:
        ours, plain = networks.mask_step(adc_bits, **network), networks.plain_step(**network)
        more = {"peak_memory_ratio": ours.peak_bytes / plain.peak_bytes}
        return _ratio(lambda: (ours.run, plain.run), more, seconds=seconds, rounds=rounds)()

    return measure


def _lines_step() -> tuple[Any, Any]:
    return networks.mask_step(8, method=xbm.methods.xbm_lines()).run, networks.mask_step(8).run


def _images(pixels: int = 32, **network: Any) -> Measure:
    return _ratio(lambda: (networks.step_images(pixels=pixels), networks.mask_step(8, pixels=pixels, **network).run))


def _memory(adc_bits: int | None) -> Measure:
    return _once("ratio", lambda: networks.mask_step(adc_bits).peak_bytes / networks.plain_step().peak_bytes)


def _gibibytes(**network: Any) -> Measure:
    return _once("gib", lambda: networks.mask_step(8, **network).peak_bytes / 2**30)


def _compiling(make: Callable[..., networks.Step], *args: Any, **network: Any) -> Measure:
    return _seconds(lambda: make(*args, **network).compile_times())


def _task_memory(**network: Any) -> Measure:
    def measure() -> Measured:
        found = serving.resident_memory(**network)
        return Measured("ratio", [found["ratio"]], {"mib": found["mib"]})

    return measure


def _serving(make: Callable[..., tuple[Any, Any]], **network: Any) -> Measure:
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
    Row("ResNet-20 forward, 64 rows, 8-bit ADC", 1.1, None, _ratio(lambda: _forward(8))),
    Row("ResNet-20 mask training step, ideal converter", 1.05, 2.4, _train(None)),
    Row("ResNet-20 mask training step, 8-bit ADC", 1.3, 2.4, _train(8)),
    Row("ResNet-20 mask training step, 8-bit ADC: peak memory", 2.0, None, _memory(8)),
    Row("MobileNetV2 112 px mask training step, ideal converter", 1.0, None, _train(None, 40.0, **MOBILENET)),
    Row("MobileNetV2 112 px mask training step, 8-bit ADC", 1.0, None, _train(8, 40.0, **MOBILENET)),
    Row("MobileNetV2 112 px mask training step, 8-bit ADC: GiB", 3.0, None, _gibibytes(**MOBILENET)),
    Row("ResNet-50 112 px mask training step, ideal converter", 1.05, None, _train(None, 40.0, 6, **RESNET50)),
    Row("ResNet-50 112 px mask training step, 8-bit ADC", 1.3, None, _train(8, 40.0, 6, **RESNET50)),
    Row("MiniLM-L6 48 tokens mask training step, ideal converter", 1.1, None, _train(None, 40.0, 6, **MINILM)),
    Row("MiniLM-L6 48 tokens mask training step, 8-bit ADC", 1.4, None, _train(8, 40.0, 6, **MINILM)),
    Row("MiniLM-L6 48 tokens mask training step, 8-bit ADC: GiB", 3.0, None, _gibibytes(**MINILM)),
    Row("ResNet-20 step's images, decoded and augmented, to the step", 0.33, None, _images()),
    Row("MobileNetV2 112 px step's images, decoded and augmented, to the step", 0.33, None, _images(**MOBILENET)),
    Row(
        "adapt as a whole, ResNet-20, an epoch of 50 steps, to its bare steps",
        1.05,
        None,
        _ratio(networks.whole_adaption, seconds=60.0, rounds=6),
    ),
    Row(
        "eight tasks' mask training steps vmapped, to eight steps",
        0.9,
        None,
        _ratio(networks.eight_steps, seconds=40.0, rounds=6),
    ),
    Row("line gates, conv 64 channels, per read, to column gains", 1.3, None, _ratio(layers.by_line)),
    Row(
        "line gates, conv 64 channels, with gradients, to column gains",
        1.3,
        None,
        _ratio(partial(layers.by_line, gradient=True)),
    ),
    Row(
        "line gates, ResNet-20 mask training step, 8-bit ADC, to column gains",
        1.3,
        None,
        _ratio(_lines_step, seconds=12.0, rounds=12),
    ),
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
        _seconds(partial(networks.programming_times, wires=True)),
    ),
    Row("compiling ResNet-20's read: seconds", 8.0, None, _compiling(networks.read_compiled)),
    Row(
        "compiling ResNet-20's training step: seconds",
        20.0,
        None,
        _compiling(networks.mask_step, 8),
    ),
    Row(
        "compiling ResNet-50's training step: seconds",
        60.0,
        None,
        _compiling(networks.mask_step, 8, **RESNET50),
    ),
    Row("ten costs of ResNet-50 with a column mask, one after another: seconds", 0.2, None, _seconds(costs.ten_costs)),
    Row("the first cost of ResNet-50, nothing compiled before: seconds", 0.5, None, _seconds(costs.first_cost)),
    Row(
        "cost of ResNet-50 by 1,000 technologies in one vmapped call, once compiled: seconds",
        1.0,
        None,
        _seconds(costs.thousand_technologies),
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
    Row(
        "serving, ResNet-20: a thousand times from one task to another: seconds", 1.0, None, _seconds(serving.switching)
    ),
    Row("serving, ResNet-20: memory of 100 tasks, to their values", 1.2, None, _task_memory()),
    Row(
        "serving, MobileNetV2: memory of 100 tasks, to their values",
        1.2,
        None,
        _task_memory(**MOBILE),
    ),
    Row("xbm predict, one image, all compiled before: seconds", 3.0, None, _seconds(serving.cold_start)),
)
