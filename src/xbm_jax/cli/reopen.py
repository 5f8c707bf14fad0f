"""A new process opens what a quickstart saved and serves a mixed batch: ``python -m xbm_jax.cli.reopen OUT NAME ...``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xbm_jax.data import Dataset, load
from xbm_jax.tasks import MaskBank, load_chip, serve
from xbm_jax.tasks.serving import mixed_logits
from xbm_jax.training import for_chip

__all__ = ["PROBE_IMAGES", "main", "probe_batch"]

PROBE_IMAGES = 32
"""Test images of each task that are predicted before saving and after."""


def probe_batch(data: Mapping[str, Dataset]) -> tuple[np.ndarray, list[str], list[int]]:
    """Images of all tasks in turn, the task of each and its place in its test split."""
    names = [name for _ in range(PROBE_IMAGES) for name in data]
    index = [i for i in range(PROBE_IMAGES) for _ in data]
    images = np.stack([data[name].x_test[i] for name, i in zip(names, index, strict=True)])
    return images, names, index


def main(out: str, *names: str) -> None:
    """Print the predicted classes and the number of compilations as one line of JSON."""
    chip = load_chip(Path(out) / "chip")
    server = serve(chip, MaskBank.open(Path(out) / "bank", chip), names, batch_size=PROBE_IMAGES)
    images, tasks, _ = probe_batch({name: for_chip(chip, load(name.split(".")[0])) for name in names})
    classes = server(images, tasks).tolist()
    print(json.dumps({"classes": classes, "compilations": mixed_logits._cache_size()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
