"""What :func:`xbm_jax.tasks.inspect` found, as plain values, and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xbm_jax.errors import DataError

__all__ = ["Inspection", "LayerInspection", "WorstClip", "WorstColumn"]


@dataclass(frozen=True)
class WorstColumn:
    """The output channel with the lowest signal-to-noise ratio."""

    column: int
    snr_db: float


@dataclass(frozen=True)
class WorstClip:
    """The column of a row tile whose conversions (or those of one of its lines) clip most often."""

    tile: int
    column: int
    clip_rate: float


@dataclass(frozen=True)
class LayerInspection:
    """One layer of a chip on some images.

    Attributes:
        path: the layer.
        folded: whether its read is one product, exactly, so that no conversion is simulated.
        fold_reason: why, or why not.
        macs: multiply-accumulates for one image.
        snr_db: signal-to-noise ratio of the output; ``None`` where there is no signal, or no error at all.
        worst_column: of the columns that have a ratio; ``None`` where none has.
        active_columns: share of the columns of row tiles whose gain is not zero; of a task by line, of their lines.
        adc_bits: the converter's resolution; ``None`` for an ideal one.
        clip_rate: share of the active columns' conversions that clip; 0 where none is simulated.
        worst_clip: ``None`` where no conversion is simulated or none clips.
        codes_used: how many of the ``2**adc_bits`` codes were met; ``None`` where no conversion is simulated.
        codes_share: the same as a share.
    """

    path: str
    folded: bool
    fold_reason: str
    macs: int
    snr_db: float | None
    worst_column: WorstColumn | None
    active_columns: float
    adc_bits: int | None
    clip_rate: float
    worst_clip: WorstClip | None
    codes_used: int | None
    codes_share: float | None

    def cells(self) -> dict[str, str]:
        """What a table says of the layer, by heading."""
        worst, clip, used = self.worst_column, self.worst_clip, self.codes_used
        return {
            "layer": self.path,
            "read": "folded" if self.folded else "simulated",
            "SNR dB": _decibels(self.snr_db),
            "worst dB": _decibels(worst and worst.snr_db),
            "at column": str(worst.column) if worst else "-",
            "clip %": "-" if used is None else f"{100 * self.clip_rate:.2f}",
            "worst clip %": f"{100 * clip.clip_rate:.1f}" if clip else "-",
            "at tile, column": f"{clip.tile}, {clip.column}" if clip else "-",
            "codes used": "-" if used is None or self.adc_bits is None else f"{used:,} of {2**self.adc_bits:,}",
            "active %": f"{100 * self.active_columns:.1f}",
        }


@dataclass(frozen=True)
class Inspection:
    """A chip on some images, layer by layer; ``print`` shows it as a table.

    Attributes:
        network: the backbone.
        images: how many were looked at.
        layers: the layers on crossbars, in network order.
        folded_share: share of their multiply-accumulates that were one exact product.
        simulated_share: share whose conversions were simulated.
        weights_on_arrays: how many there are.
        digital_weights: how many stayed digital, by array path; the head is not among them.
    """

    network: str
    images: int
    layers: tuple[LayerInspection, ...]
    folded_share: float
    simulated_share: float
    weights_on_arrays: int = 0
    digital_weights: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain values by field name; JSON has no infinity, and nor have these."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Inspection:
        """The inspection of :meth:`to_json`.

        Raises:
            DataError: values that are none.
        """
        try:
            layers = [
                LayerInspection(
                    **{
                        **layer,
                        "worst_column": layer["worst_column"] and WorstColumn(**layer["worst_column"]),
                        "worst_clip": layer["worst_clip"] and WorstClip(**layer["worst_clip"]),
                    }
                )
                for layer in values["layers"]
            ]
            found = cls(**{**values, "layers": tuple(layers)})
            str(found)  # values of other types than these have no text
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise DataError("inspection", type(error).__name__, f"what Inspection.to_json gave ({error})") from error
        return found

    def notes(self) -> list[str]:
        """Lines that belong under a table: what was folded, and why each layer could be or not."""
        reasons: dict[str, list[str]] = {}
        for layer in self.layers:
            line = f"{'folded' if layer.folded else 'simulated'}, {layer.fold_reason}"
            reasons.setdefault(line, []).append(layer.path)
        shares = f"{self.folded_share:.1%} folded exactly, {self.simulated_share:.1%} simulated"
        shown = list(reasons.items())[:_MOST_REASONS]
        rest = len(self.layers) - sum(len(paths) for _, paths in shown)
        return [
            f"{self.network}, {self.images:,} images; multiply-accumulates: {shares}",
            *(f"{_layers(paths, len(self.layers))}: {line}" for line, paths in shown),
            *([f"{rest} more layers, each for its own fold_reason"] if rest else []),
            *self._digital(),
        ]

    def _digital(self) -> list[str]:
        """What stayed digital, where anything did; the largest arrays first."""
        count = sum(self.digital_weights.values())
        largest = sorted(self.digital_weights.items(), key=lambda item: -item[1])
        named = ", ".join(f"{path} {size:,}" for path, size in largest[:_MOST_REASONS])
        more = f" and {len(largest) - _MOST_REASONS} more" if len(largest) > _MOST_REASONS else ""
        total = count + self.weights_on_arrays
        return [f"{count:,} of {total:,} weights stayed digital: {named}{more}"] if count else []

    def __str__(self) -> str:
        if not self.layers:
            return "\n".join(self.notes())
        rows = [layer.cells() for layer in self.layers]
        columns = [[heading, *(row[heading] for row in rows)] for heading in rows[0]]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(
                text.ljust(width) if index < 2 else text.rjust(width)
                for index, (text, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in zip(*columns, strict=True)
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], *self.notes()])


_MOST_REASONS = 4
"""Lines of reasons under a table: those of lossless converters name each layer's own sums."""


def _decibels(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1f}"


def _layers(paths: list[str], count: int) -> str:
    """Which layers a line is about."""
    if len(paths) == count:
        return "all layers"
    return ", ".join(paths) if len(paths) <= 3 else f"{paths[0]} and {len(paths) - 1} more"
