"""Rows that look like a run's."""

from __future__ import annotations

import dataclasses

from xbm_jax.report import Row

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
