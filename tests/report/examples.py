"""Rows that look like a run's, and an inspection."""

from __future__ import annotations

import dataclasses

from xbm_jax.report import Row
from xbm_jax.tasks import Inspection, LayerInspection, WorstClip, WorstColumn

XBM = Row(
    task="fashion_mnist",
    method="xbm",
    accuracy=0.847,
    val_accuracy=0.8512,
    mask_bits=4_400,
    norm_bits=88_064,
    head_bits=20_800,
    cells_written=0,
    rows=64,
    seconds=12.34,
    images_per_second=1234.5,
    seed=7,
)
HEAD = dataclasses.replace(XBM, method="head_only", accuracy=0.607, mask_bits=0, norm_bits=0)
FINETUNE = dataclasses.replace(
    XBM, method="finetune", accuracy=0.899, mask_bits=0, weight_bits_stored=2_141_568, cells_written=535_392
)
QUICKDRAW = dataclasses.replace(XBM, task="quickdraw", accuracy=0.77)
ROWS = [HEAD, XBM, QUICKDRAW]
ALL_ROWS = [HEAD, XBM, FINETUNE, QUICKDRAW]

STEM = LayerInspection(
    path="stem",
    folded=True,
    fold_reason="ideal converter",
    macs=1000,
    snr_db=41.2,
    worst_column=WorstColumn(3, 38.0),
    active_columns=1.0,
    adc_bits=None,
    clip_rate=0.0,
    worst_clip=None,
    codes_used=None,
    codes_share=None,
)
CONV = LayerInspection(
    path="[red]conv",
    folded=False,
    fold_reason="8-bit converter whose step is not one level",
    macs=3000,
    snr_db=24.4,
    worst_column=WorstColumn(7, 11.0),
    active_columns=0.75,
    adc_bits=8,
    clip_rate=0.0025,
    worst_clip=WorstClip(1, 6, 0.125),
    codes_used=200,
    codes_share=200 / 256,
)
INSPECTION = Inspection("net", 1000, (STEM, CONV), 0.25, 0.75)


def points(axes, marker: str) -> set[tuple[float, float]]:
    """Where the markers of a kind stand in a panel."""
    return {(line.get_xdata()[0], round(line.get_ydata()[0], 9)) for line in axes.lines if line.get_marker() == marker}
