"""A new process opens what a quickstart saved and serves a mixed batch: ``python -m xbm_jax.cli.reopen OUT < BATCH``.

The batch is an ``.npz`` of :func:`probe_batch`'s images and the name of the task of each.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import numpy as np

from xbm_jax.banks import MaskBank, load_chip
from xbm_jax.crossbar.primitives.platforms import here
from xbm_jax.data import Dataset, stratified_sample
from xbm_jax.serving import serve
from xbm_jax.serving.programs import mixed_logits

__all__ = ["PROBE_IMAGES", "main", "packed", "probe_batch", "probe_index"]

PROBE_IMAGES = 32
"""Test images of each task that are predicted before saving and after."""


def probe_index(data: Dataset) -> np.ndarray:
    """At most :data:`PROBE_IMAGES` test images of all classes; test sets may stand sorted by class."""
    count = min(PROBE_IMAGES, len(data.y_test))
    return stratified_sample(data.y_test, count, 0, keep_every_class=False)


def probe_batch(data: Mapping[str, Dataset]) -> tuple[np.ndarray, list[str], list[int]]:
    """Probe images of all tasks in turn, the task of each and its place among its task's."""
    probes = {name: dataset.x_test[probe_index(dataset)] for name, dataset in data.items()}
    turns = [(i, name) for i in range(PROBE_IMAGES) for name in data if i < len(probes[name])]
    images = np.stack([probes[name][i] for i, name in turns])
    return images, [name for _, name in turns], [i for i, _ in turns]


def packed(images: np.ndarray, tasks: list[str]) -> bytes:
    """What :func:`main` reads."""
    buffer = io.BytesIO()
    np.savez(buffer, images=images, tasks=np.array(tasks))
    return buffer.getvalue()


@here()
def main(out: str, batch: IO[bytes]) -> None:
    """Print the predicted classes and the number of compilations as one line of JSON."""
    with np.load(io.BytesIO(batch.read()), allow_pickle=False) as arrays:
        images, tasks = arrays["images"], arrays["tasks"].tolist()
    chip = load_chip(Path(out) / "chip")
    names = list(dict.fromkeys(tasks))
    server = serve(chip, MaskBank.open(Path(out) / "bank", chip), names, batch_size=PROBE_IMAGES)
    classes = server(images, tasks).tolist()
    # JAX counts compilations nowhere else, and its types leave this out.
    compilations = mixed_logits._cache_size()  # type: ignore[attr-defined]
    print(json.dumps({"classes": classes, "compilations": compilations}))


if __name__ == "__main__":
    main(sys.argv[1], sys.stdin.buffer)
