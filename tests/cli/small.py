"""What the tests of the command line share: a backbone, tasks and files that take seconds instead of minutes.

As a script, ``small.py OUT < BATCH``, it is ``xbm_jax.cli.reopen`` in a process that knows the small backbone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytest

import xbm_jax
from tasks import tiny
from xbm_jax.cli import main
from xbm_jax.data import Dataset
from xbm_jax.masks import Method
from xbm_jax.models import Chip, Preprocess
from xbm_jax.models.registry import MODELS, _Entry
from xbm_jax.models.weights.names import Row
from xbm_jax.tasks import Task

NAMED_AS_HERE = {"torch": (Row(r"(\w+)", r"\1"),)}
ENTRY = _Entry(tiny.TinyNet, "linear", Preprocess(mean=(0.5,) * 3, std=(0.25,) * 3), tiny.SIZE, NAMED_AS_HERE)
"""The small backbone; it ships no weights, and its layers have the same names in PyTorch."""

NAMES = ("tiny", "tiny2")

CLASSES = ("left", "right")


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the small backbone one that ``--model`` and a saved chip may name; twice, as two networks."""
    for name in NAMES:
        monkeypatch.setitem(MODELS, name, ENTRY)  # type: ignore[arg-type]


def run(*args: object) -> int:
    """Exit code of ``xbm ARGS`` in this process."""
    try:
        main([str(arg) for arg in args])
    except SystemExit as left:
        return int(left.code or 0)
    return 0


def images(count: int, size: int = 16, channels: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise whose left half is bright (class 0) or its right half (class 1): uint8 images and labels."""
    labels = np.arange(count) % 2
    x = np.random.default_rng(seed).integers(0, 120, (count, size, size, channels), np.uint8)
    x[labels == 0, :, : size // 2] += 120
    x[labels == 1, :, size // 2 :] += 120
    return x, labels


def arrays(train: int = 40, test: int = 20, size: int = 16, channels: int = 3) -> dict[str, Any]:
    """A task as an ``.npz`` holds it."""
    x, y = images(train, size, channels)
    x_test, y_test = images(test, size, channels, seed=1)
    return {"x_train": x, "y_train": y, "x_test": x_test, "y_test": y_test, "class_names": np.array(CLASSES)}


def write_npz(path: Path, **changes: Any) -> Path:
    """That task as a file, some arrays replaced."""
    content: Any = arrays() | changes
    np.savez(path, **content)
    return path


def write_weights(path: Path, changes: dict[str, np.ndarray | None] | None = None) -> Path:
    """The small backbone's weights as an ``.npz``, some arrays replaced or, by None, left out."""
    changed = own_weights() | (changes or {})
    content: Any = {name: array for name, array in changed.items() if array is not None}
    np.savez(path, **content)
    return path


def own_weights() -> dict[str, np.ndarray]:
    """The small backbone's arrays by path."""
    return {path: np.asarray(array) for path, array in tiny.weights().arrays.items()}


def write_folder(root: Path) -> Path:
    """That task as grey PNG files, ``train/CLASS`` and ``test/CLASS``."""
    from PIL import Image

    for split, count, seed in (("train", 40, 2), ("test", 20, 3)):
        for i, (image, label) in enumerate(zip(*images(count, channels=1, seed=seed), strict=True)):
            folder = root / split / CLASSES[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0]).save(folder / f"{i:02}.png")
    return root


def load(source: str) -> Dataset:
    """``xbm_jax.load``, but a bundled name gives a task for the small backbone, with images of its own."""
    if source.startswith("npz:"):
        return xbm_jax.load(source)
    name = source
    data = tiny.stripes(train=192, test=64, noise=20.0 + len(name))
    return Dataset(name, data.x_train, data.y_train, data.x_test, data.y_test, data.class_names)


def everything(root: Path) -> dict[str, tuple[int, int] | None]:
    """All that lies under a folder: size and time of each file, None for a folder."""
    found = {}
    for path in sorted(root.rglob("*")):
        seen = path.lstat()
        found[str(path.relative_to(root))] = None if path.is_dir() else (seen.st_size, seen.st_mtime_ns)
    return found


def made_up(chip: Chip, data: Dataset, *, method: Method, **_: Any) -> Task:
    """In the place of ``adapt``: a task in no time."""
    task = tiny.made_up_task(chip, method, data.num_classes)
    return task.replace(meta={"accuracy": 0.5, "val_accuracy": 0.5, "images": {"test": len(data.y_test)}})


def leftovers(folder: Path) -> list[str]:
    """Files and folders that something was still writing."""
    marks = (".part", ".writable", "tmp")
    return [str(path) for path in folder.rglob("*") if any(mark in path.name for mark in marks)]


if __name__ == "__main__":
    from xbm_jax.cli import reopen

    register(pytest.MonkeyPatch())
    reopen.main(sys.argv[1], sys.stdin.buffer)
