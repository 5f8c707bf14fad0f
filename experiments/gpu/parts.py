"""The parts, in the order of their worth: what each needs, how long it may take, and who measures it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from experiments.gpu import packages

__all__ = ["FILES", "PARTS", "Asked", "Part", "table_of"]

FILES = ("imagenet_mobilenetv2.npz", "flowers102_64px.npz")
"""Of ``DATA=``: 14 MB."""


@dataclass(frozen=True)
class Asked:
    """What a part is asked: how large, where its files are, and how many seconds it has."""

    toy: bool
    out: Path
    data: Path | None
    seconds: float


@dataclass(frozen=True)
class Part:
    """One line of the results.

    Attributes:
        name: of the line.
        measure: gives JSON values, or raises where something is wrong.
        limit_seconds: after which it counts as hanging.
        least_seconds: with fewer left it is not begun.
        packages, files: what it needs beyond :data:`experiments.gpu.packages.NEEDED`.
        always: is run in every process, also where it is done.
        as_toy: whether a toy run does it; the toy of some is another's.
    """

    name: str
    measure: Callable[[Asked], dict[str, Any]]
    limit_seconds: float = 45.0
    least_seconds: float = 8.0
    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    always: bool = False
    as_toy: bool = True

    @property
    def key(self) -> str:
        """The name as a file's."""
        return re.sub(r"\W+", "-", self.name).strip("-")


def _of(module: str, function: str, **options: Any) -> Callable[[Asked], dict[str, Any]]:
    """A function of this package that is imported where it is called: the driver needs none of what it stands on."""

    def measure(asked: Asked) -> dict[str, Any]:
        return partial(getattr(import_module(f"experiments.gpu.{module}"), function), **options)(asked)

    return measure


_layers, _steps, _kernel = (partial(_of, module) for module in ("layers", "networks", "kernel"))


def _step(name: str, adc_bits: int | None) -> Part:
    """A network's training step; as a toy, one of them is all of them."""
    converter = "ideal converter" if adc_bits is None else f"{adc_bits}-bit ADC"
    toy = name == "ResNet-20" and adc_bits is not None
    return Part(f"step: {name}, {converter}", _steps("step", name=name, adc_bits=adc_bits), 60.0, 15.0, as_toy=toy)


_NETWORKS = ("ResNet-20", "ResNet-50", "MiniLM-L6")
PARTS = (
    Part("machine", _of("machine", "machine"), 60.0, 0.0, always=True),
    Part("codes and draws, to the host's", _of("codes", "codes"), 40.0),
    Part("fused read, to the plain one", _kernel("kernel_is_right"), 40.0),
    *(
        Part(
            f"fused read, {rows} rows, {'ideal' if ideal else 'real'} cells",
            _kernel("kernel_speed", rows=rows, ideal=ideal),
            30.0,
            as_toy=rows == 64 and ideal,
        )
        for rows in (128, 64)
        for ideal in (True, False)
    ),
    Part("tests", _of("tests", "tests"), 55.0, 20.0, packages=packages.TESTS),
    *(Part(f"layer: {name}", _layers("layer", name=name), 25.0) for name in ("dense", "conv", "depthwise", "bits")),
    *(_step(name, 8) for name in _NETWORKS),
    Part("eight tasks in one step, to eight steps", _steps("eight_tasks"), 60.0, 15.0),
    Part("reading ResNet-20", _steps("reading")),
    Part("noise", _layers("noise")),
    Part("programming ResNet-20", _steps("programming")),
    *(_step(name, None) for name in _NETWORKS),
    Part("comparison, seeds together", _of("comparison", "comparison"), 240.0, 30.0, files=FILES),
)


def table_of(module: str) -> tuple[Part, ...]:
    """The parts of a module of this kind."""
    return import_module(module).PARTS
