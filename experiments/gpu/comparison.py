"""As much of the large comparison as there is time for: MobileNetV2, one set, its seeds learned together."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from experiments.gpu.parts import FILES, Asked
from experiments.resume import read_records
from experiments.suite import run as suite

__all__ = ["comparison"]

_METHODS = ("xbm", "norm_only", "piggyback", "head_only", "xma", "finetune")
"""By what they are worth to the comparison."""


def comparison(asked: Asked) -> dict[str, Any]:
    """Accuracy and seconds of one training, method by method, until the next would not fit; rows in ``<out>/suite``.

    Raises:
        RuntimeError: not one method was done.
    """
    end = time.monotonic() + asked.seconds
    found: dict[str, Any] = {}
    for method in _METHODS[: 1 if asked.toy else None]:
        longest = max((one["seconds"] for one in found.values()), default=0.0)
        if end - time.monotonic() < 1.5 * longest:
            break
        began = time.monotonic()
        config = _toy(asked.out, method) if asked.toy else _full(asked, method)
        suite.main(config)
        (name,) = config.only
        rows = read_records(config.file(name), config.kept(name), "rows")
        own = [row["accuracy"] for row in rows if row["method"] == method]
        seconds = time.monotonic() - began
        found[method] = {"seconds": seconds, "seeds": len(own), "accuracy": float(np.mean(own))}
    if not found:
        raise RuntimeError(f"no method was learned in {asked.seconds:.0f} seconds")
    return found


def _full(asked: Asked, method: str) -> suite.Config:
    assert asked.data is not None  # one of the part's files
    return suite.Config(
        data=asked.data,
        only=("large_suite",),
        out=asked.out / "suite",
        tasks=(FILES[1].removesuffix(".npz"),),
        methods=(method,),
        backbones=("mobilenet-v2",),
        seeds=(0, 1, 2),
        together=True,
    )


def _toy(out: Path, method: str) -> suite.Config:
    """The bundled network and stripes in two directions."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = rng.integers(0, 60, (48, 8, 8, 3), np.uint8)
    images[labels == 0, ::2] += 150
    images[labels == 1, :, ::2] += 150
    np.savez(out / "usps.npz", x_train=images[:32], y_train=labels[:32], x_test=images[32:], y_test=labels[32:])
    return suite.Config(
        data=out,
        only=("small_suite",),
        out=out / "suite",
        tasks=("usps",),
        methods=(method,),
        chips=("ideal",),
        seeds=(0, 1),
        images=32,
        epochs=1,
        batch_size=8,
        together=True,
    )
