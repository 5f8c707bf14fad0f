"""The chips of the comparisons, by name, and their backbones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np

import xbm_jax as xbm
from xbm_jax.crossbar import PcmJoshi

DAY = 86_400.0


@dataclasses.dataclass(frozen=True)
class ChipKind:
    """A spec, and how old the chip is when it is used.

    ``t_seconds``: time since programming, with global drift compensation; ``None`` for right after it.
    """

    spec: xbm.CrossbarSpec
    t_seconds: float | None = None

    def aged(self, chip: xbm.Chip) -> xbm.Chip:
        """A chip of this kind that was just programmed, when it is used."""
        return chip if self.t_seconds is None else chip.at(self.t_seconds, compensate=True)


_VERIFIED, _RELAXED = (xbm.spec_by_name(name) for name in ("verified", "relaxed"))

CHIPS: Mapping[str, ChipKind] = {
    "verified": ChipKind(_VERIFIED),
    "relaxed": ChipKind(_RELAXED),
    "ideal": ChipKind(_VERIFIED.replace(adc=xbm.Adc(bits=None), device=xbm.Ideal())),
    # Bad ones, each by one cause, then all but drift together
    "faults": ChipKind(_VERIFIED.replace(faults=xbm.Faults(stuck_on=0.003, stuck_off=0.02))),
    "wires": ChipKind(_VERIFIED.replace(wires=xbm.Wires(4.0, 4.0))),
    "drift": ChipKind(_RELAXED.replace(device=PcmJoshi()), 30 * DAY),
    "worn": ChipKind(
        _RELAXED.replace(faults=xbm.Faults(stuck_on=0.002, stuck_off=0.02), wires=xbm.Wires(2.0, 2.0)), DAY
    ),
}
BAD = ("relaxed", "faults", "wires", "drift", "worn")


@lru_cache
def backbone_of(name: str, folder: Path) -> xbm.Backbone:
    """A backbone with its weights: those in the package, or the file of the folder."""
    files = {"mobilenet-v2": "imagenet_mobilenetv2.npz", "resnet50-v1": "imagenet_resnet50.npz"}
    return xbm.load_backbone(name, folder / files[name] if name in files else None)


def design_of(backbone: xbm.Backbone, spec: xbm.CrossbarSpec, images: np.ndarray | None) -> xbm.Chip:
    """The chip that all chips of a spec share scales and ranges with: measured with ideal cells and ideal wires."""
    plain = spec.replace(wires=xbm.Wires())
    return xbm.tasks.design(backbone, plain, images)


def chip_of(
    kind: ChipKind, backbone: xbm.Backbone, images: np.ndarray | None, seed: int, *, lines: bool = False
) -> xbm.Chip:
    """A chip as it is: programmed with the seed's draws, its ranges the design's, aged.

    Args:
        images: training images that scales and ranges are measured on where none came with the backbone.
        lines: ranges that cover one line of a pair alone too, for masks by line; measured on ``images``.
    """
    ranges = design_of(backbone, kind.spec, images)
    if lines:
        ranges = xbm.measure_ranges(ranges, images, lines=True)
    chip = xbm.program(backbone, kind.spec, jax.random.key(seed))
    tiles = {}
    for path, layer in chip.tiles.items():
        wanted = ranges.tiles[path]
        layer = xbm.crossbar.with_signed_inputs(layer, wanted.plan.signed_inputs)
        adc = wanted.adc if layer.adc is None or kind.spec.adc.range == "calibrated" else layer.adc
        tiles[path] = layer.replace(input_scale=wanted.input_scale, adc=adc)
    return kind.aged(chip.replace(tiles=tiles))
