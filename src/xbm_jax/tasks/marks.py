"""Who a chip is: digests that tell whether a task was learned on it, and under which calibration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from xbm_jax.errors import BankError
from xbm_jax.models import Chip
from xbm_jax.storage.codec import encode

__all__ = ["ChipMark", "canonical", "chip_mark", "identity"]

_MARK = "_mark"
"""Where a chip keeps its mark. It is no field, so that neither JAX nor ``replace`` carries it to another chip."""


@dataclass(frozen=True)
class ChipMark:
    """What a task remembers of its chip: SHA-256 digests.

    Attributes:
        identity: of levels, scales, cell keys, digital arrays and norms; see :func:`identity`.
        calibration: of input scales and converter grids, which can be measured anew on the same chip.
        design: of network and specs; ``None`` where they cannot be compared (a device of functions).
    """

    identity: str
    calibration: str
    design: str | None

    def same_chip(self, other: ChipMark) -> bool:
        """Whether the other is this chip, at whatever age and however calibrated."""
        return self.identity == other.identity and (None in (self.design, other.design) or self.design == other.design)

    def __str__(self) -> str:
        """The first digits of both: cells alone do not tell two specs apart."""
        return f"{self.identity[:12]}, design {(self.design or 'unknown')[:12]}"


def chip_mark(chip: Chip) -> ChipMark | None:
    """The mark of a chip, hashed once and kept on it; ``None`` while JAX traces it: there is nothing to hash."""
    kept = vars(chip).get(_MARK)
    if kept is None and not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(chip)):
        kept = ChipMark(identity(chip), _calibration(chip), _design(chip))
        object.__setattr__(chip, _MARK, kept)
    return kept


def identity(chip: Chip) -> str:
    """SHA-256 of nominal levels, scales, cell keys, digital arrays and norms: what makes a chip this one."""
    arrays: list[tuple[str, Any]] = []
    for path, tiles in chip.tiles.items():
        arrays += [(f"{path}/{name}", getattr(tiles, name)) for name in ("levels", "weight_scale", "key_data")]
    arrays += chip.digital.items()
    arrays += [(f"{path}/{name}", array) for path, norm in chip.norms.items() for name, array in norm.items()]
    # Of the usual generator nothing is said, as before there were others.
    others = {path: tiles.key_impl for path, tiles in chip.tiles.items() if tiles.key_impl != "threefry2x32"}
    return _digest(sorted(arrays, key=lambda item: item[0]), canonical(others) if others else "")


def _calibration(chip: Chip) -> str:
    layers = sorted(chip.tiles.items())
    arrays = [(path, leaf) for path, tiles in layers for leaf in jax.tree.leaves((tiles.input_scale, tiles.adc))]
    return _digest(arrays, canonical({path: tiles.plan.signed_inputs for path, tiles in layers}))


def _design(chip: Chip) -> str | None:
    try:
        specs = {path: encode(tiles.plan.spec) for path, tiles in chip.tiles.items()}
    except BankError:
        return None
    return _digest([], canonical([chip.network.name, specs]))


def _digest(arrays: list[tuple[str, Any]], text: str) -> str:
    digest = hashlib.sha256()
    for name, array in arrays:
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(jax.device_get(array)).tobytes())
    digest.update(text.encode())
    return digest.hexdigest()


def canonical(data: Any) -> str:
    """JSON text that is equal for equal data."""
    return json.dumps(data, sort_keys=True)
