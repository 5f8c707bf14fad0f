"""Which chip to build: designs of arrays and converters, each measured by the simulator and priced, and the best."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from xbm_jax.crossbar import Adc, Cell, CrossbarSpec, with_signed_inputs
from xbm_jax.crossbar.primitives.adc import AdcRange, snapped_range
from xbm_jax.data.dataset import check_labels
from xbm_jax.errors import DataError, SpecError
from xbm_jax.examples import count, take
from xbm_jax.hardware.constants.technology import Technology
from xbm_jax.hardware.costs import cost
from xbm_jax.hardware.workloads import Activity, measure_activity, workload
from xbm_jax.models import Backbone, Chip, program
from xbm_jax.tasks import evaluate, source_task
from xbm_jax.tasks.population import design as measured_design

__all__ = ["Design", "Point", "accuracy", "built", "designs", "measure", "pareto", "priced"]

_LIMIT_BITS = 16
"""So fine a grid that its ends are the measured percentiles: what other bits need is measured already."""

_ACTIVITY_IMAGES = 64


@dataclass(frozen=True)
class Design:
    """What of a chip a search varies; all else is a base chip's.

    Args:
        rows: word lines of an array.
        cell_bits: of one cell; a weight takes ``ceil(stored bits / cell_bits)`` of them a line.
        adc_bits: of the converters.
        per: what shares a calibrated range: ``"layer"``, ``"tile"`` or ``"column"``.
        range: ``"calibrated"`` or ``"max"``, as of :class:`~xbm_jax.Adc`; of the worst case ``per`` says nothing.

    Raises:
        SpecError: what no chip has, as :class:`~xbm_jax.CrossbarSpec` says it.
    """

    rows: int = 64
    cell_bits: int = 7
    adc_bits: int = 8
    per: Literal["layer", "tile", "column"] = "layer"
    range: Literal["calibrated", "max"] = "calibrated"

    def __post_init__(self) -> None:
        if self.range not in ("calibrated", "max"):
            raise SpecError("Design.range", self.range, "'calibrated' or 'max'")
        if self.cell_bits is None or self.adc_bits is None:
            name = "cell_bits" if self.cell_bits is None else "adc_bits"
            raise SpecError(f"Design.{name}", None, "a number of bits: analog cells and ideal converters have no price")
        CrossbarSpec(rows=self.rows)
        Cell(bits=self.cell_bits)
        Adc(bits=self.adc_bits, per=self.per)

    def spec(self, base: CrossbarSpec) -> CrossbarSpec:
        """The base chip with this design's arrays, cells and converters: its device, faults and wires are kept.

        Raises:
            SpecError: what does not go together, such as cells of more bits than a weight stores.
        """
        cell = dataclasses.replace(base.cell, bits=self.cell_bits)
        adc = dataclasses.replace(base.adc, bits=self.adc_bits, per=self.per, range=self.range)
        return base.replace(rows=self.rows, cell=cell, adc=adc)

    @property
    def name(self) -> str:
        """``"64 rows, 7-bit cells, 8-bit ADC per tile"``; ``"..., 8-bit ADC of worst case"``."""
        covers = f"per {self.per}" if self.range == "calibrated" else "of worst case"
        return f"{self.rows} rows, {self.cell_bits}-bit cells, {self.adc_bits}-bit ADC {covers}"


def designs(
    *,
    rows: Iterable[int] = (64,),
    cell_bits: Iterable[int] = (7,),
    adc_bits: Iterable[int] = (8,),
    per: Iterable[Literal["layer", "tile", "column"]] = ("layer",),
    range: Iterable[Literal["calibrated", "max"]] = ("calibrated",),
    base: CrossbarSpec | None = None,
) -> list[Design]:
    """All combinations that can be built, each once; those that share measurements behind one another.

    Left out are cells of more bits than a weight of ``base`` stores, logical columns wider than its arrays, arrays
    that its ``active_rows`` do not divide, and a second ``per`` of a worst case, which no range is shared in.

    Raises:
        SpecError: a value that no chip has.
    """
    base = CrossbarSpec() if base is None else base
    found: dict[tuple[Any, ...], Design] = {}
    for height, cell, mode, shared, bits in itertools.product(rows, cell_bits, range, per, adc_bits):
        made = Design(height, cell, bits, shared, mode)
        if _possible(made, base):
            found.setdefault((height, cell, mode, shared if mode == "calibrated" else "", bits), made)
    return list(found.values())


def _possible(design: Design, base: CrossbarSpec) -> bool:
    """Whether a design's parts, each possible alone, go together on the base chip."""
    if design.cell_bits > base.stored_bits or (base.active_rows and design.rows % base.active_rows):
        return False
    return -(-base.stored_bits // design.cell_bits) * base.polarities <= base.cols


@dataclass(frozen=True)
class Point:
    """What a design reaches and costs.

    Attributes:
        accuracy: of the source task, share of the images.
        joules: of one example; seconds: of one, a layer after another; m2: of all arrays and what stands beside them,
            as far as the technology has numbers.
        technology: whose constants.
    """

    design: Design
    accuracy: float
    joules: float
    seconds: float
    m2: float
    technology: str


def measure(
    backbone: Backbone,
    base_spec: CrossbarSpec,
    design: Design,
    calibration_images: Any,
    images: Any,
    labels: np.ndarray,
    technology: Technology,
    key: jax.Array,
    *,
    activity: Activity | None = None,
) -> Point:
    """One design: accuracy of the source task by the simulator, and cost by :func:`xbm_jax.hardware.cost`.

    Args:
        base_spec: all that the design does not say.
        calibration_images: that scales and converter ranges are measured on, where none came with the backbone.
        images, labels: validation images; never the ones that the chosen design's accuracy is stated on.
        key: of the chip's draws and of its read noise.
        activity: how inputs drive word lines; ``None``: measured on the first 64 of ``images``.

    Raises:
        SpecError: a design that the base chip cannot have, or bits that the technology's converter has no model for.
        DataError: images or labels that do not fit.
    """
    ((_, chip),) = built(backbone, base_spec, [design], calibration_images, key)
    reached = accuracy(chip, images, labels, key)
    if activity is None:
        activity = measure_activity(chip, take(images, slice(_ACTIVITY_IMAGES)), key=key)
    return priced(chip, design, reached, technology, images, activity)


def built(
    backbone: Backbone, base_spec: CrossbarSpec, choice: Iterable[Design], calibration_images: Any, key: jax.Array
) -> Iterator[tuple[Design, Chip]]:
    """Each design with its chip of the key's draws, calibrated.

    Designs behind one another that differ in nothing but converter bits share what is measured.
    Scales and ranges are those of :func:`xbm_jax.tasks.design`, ranges to ``2**-17`` of their span.
    """
    limits, last = None, None
    for own in choice:
        fine = dataclasses.replace(own, adc_bits=_LIMIT_BITS).spec(base_spec)
        if limits is None or fine != last:
            limits, last = measured_design(backbone, fine, calibration_images), fine
        yield own, _on_limits(program(backbone, own.spec(base_spec), key), limits)


def _on_limits(chip: Chip, limits: Chip) -> Chip:
    """The chip with the input scales of another, and with its converters' ends where they are measured ones."""
    tiles = {}
    for path, layer in chip.tiles.items():
        wanted = limits.tiles[path]
        assert wanted.adc is not None
        layer = with_signed_inputs(layer, wanted.plan.signed_inputs)
        adc, known = layer.plan.spec.adc, layer.adc
        if adc.range == "calibrated" and adc.bits is not None:
            known = _coarser(wanted.adc, adc.bits)
        tiles[path] = layer.replace(input_scale=wanted.input_scale, adc=known)
    return chip.replace(tiles=tiles)


def _coarser(fine: AdcRange, bits: int) -> AdcRange:
    """A grid of so many bits over the range of a fine one."""
    low, high = fine.min_code, fine.min_code + (2**_LIMIT_BITS - 1)
    return snapped_range(fine.lsb * low, fine.lsb * high, bits)


def accuracy(chip: Chip, images: Any, labels: np.ndarray, key: jax.Array | None = None) -> float:
    """Share of the images that the source task on the chip answers as labelled.

    Raises:
        DataError: images or labels that do not fit, or none.
    """
    labels = check_labels("labels", labels, "images", count(images))
    if not len(labels):
        raise DataError("images", "0 images", "at least one image to measure accuracy on")
    return evaluate(chip, source_task(chip), images, labels, key=key)


def priced(
    chip: Chip, design: Design, accuracy: float, technology: Technology, inputs: Any, activity: Activity | None
) -> Point:
    """A design's chip under a technology; arguments as of :func:`measure` and :func:`xbm_jax.hardware.workload`."""
    report = cost(chip, source_task(chip), technology, workload(chip, inputs, activity=activity))
    joules, seconds, m2 = (float(v) for v in (report.inference_joules, report.latency_seconds, report.total_area_m2))
    return Point(design, accuracy, joules, seconds, m2, technology.name)


def pareto(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats: none has at least their accuracy for at most their energy and is not equal in both.

    In order of energy; of equal ones all, as they came.

    Raises:
        DataError: points of several technologies: their energies are no one scale.
    """
    names = sorted({point.technology for point in points})
    if len(names) > 1:
        raise DataError("points", ", ".join(names), "points of one technology")
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.joules, -p.accuracy)):
        best = front[-1] if front else None
        if best is None or point.accuracy > best.accuracy or _place(point) == _place(best):
            front.append(point)
    return front


def _place(point: Point) -> tuple[float, float]:
    return point.accuracy, point.joules
