"""What a bank remembers of its chip, and how two chips differ."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xbm_jax.crossbar import Tiles
from xbm_jax.errors import BankError, warn
from xbm_jax.models import Chip
from xbm_jax.storage.codec import encode
from xbm_jax.tasks.marks import canonical, chip_mark, identity

__all__ = ["ChipCard", "Measured", "chip_card"]

_SAME = 1e-3
"""Share of a scale or range below which two measurements are one: an 8-bit step is four times as much."""


@dataclass(frozen=True)
class Measured:
    """What calibration found for a layer.

    Attributes:
        input_scale: ``None`` before calibration.
        signed_inputs: whether they go below zero.
        low: lowest value of its converters, a mean over conversions; ``None`` where they have no grid.
        high: likewise the highest.
    """

    input_scale: float | None
    signed_inputs: bool
    low: float | None
    high: float | None

    def difference(self, bank: Measured) -> str | None:
        """What was measured otherwise for ``bank``, if anything."""
        if self.input_scale is not None and bank.input_scale is not None:
            apart = abs(self.input_scale - bank.input_scale) > _SAME * bank.input_scale
            if apart or self.signed_inputs != bank.signed_inputs:
                return f"input scale {self.input_scale:.4g}, the bank's {bank.input_scale:.4g}"
        if self.low is None or self.high is None or bank.low is None or bank.high is None:
            return None
        if max(abs(self.low - bank.low), abs(self.high - bank.high)) <= _SAME * (bank.high - bank.low):
            return None
        return f"converter range {self.low:.4g} to {self.high:.4g}, the bank's {bank.low:.4g} to {bank.high:.4g}"


@dataclass(frozen=True)
class ChipCard:
    """What a bank remembers of its chip.

    Attributes:
        network: name of the backbone.
        row_order: which kernel rows share a tile, by layer path: "channel", "tap" or "channels" and an order's digest.
        specs: the full spec of each layer, as JSON text.
        identity: SHA-256 of nominal levels, scales, cell keys, digital arrays and norms. Drift changes conductances and
            recalibration ranges, not identity;
            another key or other weights are another chip.
        measured: what each layer was calibrated to, no part of who the chip is; empty on cards of before it was kept.
        preprocess: what becomes of an image before the network; ``None`` for other inputs, and on cards of before.
    """

    network: str
    row_order: dict[str, str]
    specs: dict[str, str]
    identity: str
    measured: dict[str, Measured] = field(default_factory=dict, compare=False)
    preprocess: dict[str, Any] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """As JSON-like data; equal specs are written once."""
        distinct = sorted(set(self.specs.values()))
        index = {path: distinct.index(text) for path, text in self.specs.items()}
        return {
            "network": self.network,
            "identity": self.identity,
            "row_order": self.row_order,
            "specs": [json.loads(text) for text in distinct],
            "spec_of_layer": index,
            "measured": {path: dataclasses.asdict(found) for path, found in self.measured.items()},
            "preprocess": self.preprocess,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ChipCard:
        """Undo :meth:`to_json`."""
        try:
            specs = {p: canonical(data["specs"][i]) for p, i in data["spec_of_layer"].items()}
            orders = {p: data["row_order"][p] for p in specs}
            measured = {p: Measured(**found) for p, found in data.get("measured", {}).items()}
            return cls(data["network"], orders, specs, data["identity"], measured, data.get("preprocess"))
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BankError("bank.chip", data, f"an undamaged chip card ({error!r})") from error

    def check(self, chip: ChipCard) -> None:
        """Raise unless ``chip`` is this one; warn where it is, with other input scales or converter ranges.

        To measure those again is a remedy for drift, but on other images it changes what tasks answer.
        """
        self.check_cells(chip)
        self._warn_of_another_calibration(chip)

    def check_cells(self, chip: ChipCard) -> None:
        """Raise unless ``chip`` is this one, naming what: network, preprocessing, layers, row order, spec or cells."""
        if chip.network != self.network:
            raise BankError("chip.network", chip.network, f"{self.network}, what the bank was learned on")
        if None not in (chip.preprocess, self.preprocess) and chip.preprocess != self.preprocess:
            name, got, wanted = _first_difference(chip.preprocess, self.preprocess)
            raise BankError(f"chip.preprocess{name}", got, f"{wanted!r}, what the bank was learned on")
        if chip.specs.keys() != self.specs.keys():
            raise BankError("chip.layers", sorted(chip.specs), f"the bank's layers {sorted(self.specs)}")
        for path, order in self.row_order.items():
            if chip.row_order[path] != order:
                raise BankError(f"chip.{path}.row_order", chip.row_order[path], f"{order!r}, the bank's row order")
        for path, text in self.specs.items():
            if chip.specs[path] != text:
                name, got, wanted = _first_difference(json.loads(chip.specs[path]), json.loads(text))
                raise BankError(f"chip.{path}.spec{name}", got, f"{wanted!r}, what the bank was learned on")
        if chip.identity != self.identity:
            allowed = f"{self.identity[:12]}: the bank's masks were learned on other cells"
            raise BankError("chip.identity", chip.identity[:12], allowed)

    def _warn_of_another_calibration(self, chip: ChipCard) -> None:
        both = [path for path in chip.measured if path in self.measured]
        found = {path: chip.measured[path].difference(self.measured[path]) for path in both}
        named = [f"{path} ({text})" for path, text in found.items() if text]
        if named:
            rest = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            text = f"the chip is calibrated otherwise than for this bank: {', '.join(named[:_NAMED])}{rest}"
            warn(f"{text}; what the tasks answer may differ")


_NAMED = 3
"""Layers that a warning names."""


def chip_card(chip: Chip) -> ChipCard:
    """The card of a chip; hashes its nominal levels, scales and keys on the host."""
    if not isinstance(chip, Chip):
        raise BankError("chip", type(chip).__name__, "a Chip: xbm.program(backbone, spec, key)")
    specs, mark = {path: tiles.plan.spec for path, tiles in sorted(chip.tiles.items())}, chip_mark(chip)
    preprocess = chip.network.preprocess
    return ChipCard(
        network=chip.network.name,
        row_order={path: str(spec.row_order) for path, spec in specs.items()},
        specs={path: canonical(encode(spec, f"chip.{path}.spec")) for path, spec in specs.items()},
        identity=identity(chip) if mark is None else mark.identity,
        measured={path: _measured(tiles) for path, tiles in chip.tiles.items()},
        preprocess=None if preprocess is None else json.loads(canonical(preprocess.described())),
    )


def _measured(tiles: Tiles) -> Measured:
    grid, bits, low, high = tiles.adc, tiles.plan.spec.adc.bits, None, None
    if grid is not None and bits is not None:
        lsb, code, offset = (np.asarray(array, np.float64) for array in (grid.lsb, grid.min_code, grid.offset))
        low, high = (float(np.mean(offset + lsb * end)) for end in (code, code + 2**bits - 1))
    scale = None if tiles.input_scale is None else float(tiles.input_scale)
    return Measured(scale, tiles.plan.signed_inputs, low, high)


def _first_difference(got: Any, wanted: Any, path: str = "") -> tuple[str, Any, Any]:
    """Name and values of the first field where two JSON-like specs differ."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        for name in sorted(got.keys() | wanted.keys()):
            if got.get(name) != wanted.get(name):
                return _first_difference(got.get(name), wanted.get(name), f"{path}.{name}")
    return path, got, wanted
