"""Who a chip is: enough to tell whether a mask bank was learned on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from xbm_jax.errors import BankError
from xbm_jax.models import Chip
from xbm_jax.tasks.codec import encode

__all__ = ["ChipCard", "chip_card"]


@dataclass(frozen=True)
class ChipCard:
    """What a bank remembers of its chip.

    Attributes:
        network: name of the backbone.
        row_order: which kernel rows share a tile, by layer path.
        specs: the full spec of each layer, as JSON text.
        identity: SHA-256 of nominal levels, scales, cell keys, digital arrays and norms. Drift changes conductances and
            recalibration ranges, not identity;
            another key or other weights are another chip.
    """

    network: str
    row_order: dict[str, str]
    specs: dict[str, str]
    identity: str

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
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ChipCard:
        """Undo :meth:`to_json`."""
        try:
            specs = {p: _canonical(data["specs"][i]) for p, i in data["spec_of_layer"].items()}
            orders = {p: data["row_order"][p] for p in specs}
            return cls(data["network"], orders, specs, data["identity"])
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise BankError("bank.chip", data, f"an undamaged chip card ({error!r})") from error

    def check(self, chip: ChipCard) -> None:
        """Raise unless ``chip`` is this one, naming what differs: network, layers, row order, spec or cells."""
        if chip.network != self.network:
            raise BankError("chip.network", chip.network, f"{self.network}, what the bank was learned on")
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


def chip_card(chip: Chip) -> ChipCard:
    """The card of a chip; hashes its nominal levels, scales and keys on the host."""
    digest = hashlib.sha256()
    arrays: list[tuple[str, Any]] = []
    for path, tiles in chip.tiles.items():
        arrays += [(f"{path}/{name}", getattr(tiles, name)) for name in ("levels", "weight_scale", "key_data")]
    arrays += chip.digital.items()
    arrays += [(f"{path}/{name}", array) for path, norm in chip.norms.items() for name, array in norm.items()]
    for name, array in sorted(arrays, key=lambda item: item[0]):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(jax.device_get(array)).tobytes())
    specs = {path: tiles.plan.spec for path, tiles in sorted(chip.tiles.items())}
    return ChipCard(
        network=chip.network.name,
        row_order={path: spec.row_order for path, spec in specs.items()},
        specs={path: _canonical(encode(spec)) for path, spec in specs.items()},
        identity=digest.hexdigest(),
    )


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def _first_difference(got: Any, wanted: Any, path: str = "") -> tuple[str, Any, Any]:
    """Name and values of the first field where two JSON-like specs differ."""
    if isinstance(got, dict) and isinstance(wanted, dict):
        for name in sorted(got.keys() | wanted.keys()):
            if got.get(name) != wanted.get(name):
                return _first_difference(got.get(name), wanted.get(name), f"{path}.{name}")
    return path, got, wanted
