"""Files that were damaged on disk: a flipped bit, a cut, a swap, an empty or a missing file."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from reliability.small import Counts, bank_values, judged, make_bank, make_run, rng, run_values

Damage = Callable[[np.random.Generator, list[Path]], None]


def flipped_bits(trials: int) -> Counts:
    """One bit of one file, each bit as likely, of a bank in two trials of three, else of a saved run."""
    return _trials(trials, _flip, seed=1)


def damaged_files(trials: int) -> Counts:
    """A file cut short, emptied, removed, or swapped with another, in turn."""
    kinds = (_cut, _empty, _remove, _swap)
    count = iter(range(trials))
    return _trials(trials, lambda draw, files: kinds[next(count) % len(kinds)](draw, files), seed=2)


def _trials(trials: int, damage: Damage, seed: int) -> Counts:
    draw, found, whole = rng(seed), Counter(), _whole()
    with tempfile.TemporaryDirectory() as place:
        reading: dict[str, Callable[[Path], dict[str, Any]]] = {"bank": bank_values, "run": run_values}
        wanted = {kind: reading[kind](folder) for kind, folder in whole.items()}
        for trial in range(trials):
            kind = "run" if trial % 3 == 2 else "bank"
            copy = Path(place) / "copy"
            shutil.copytree(whole[kind], copy, symlinks=True)
            damage(draw, sorted(path for path in copy.rglob("*") if path.is_file()))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found[judged(reading[kind](copy), wanted[kind])] += 1
            shutil.rmtree(copy)
    return found


@cache
def _whole() -> dict[str, Path]:
    """What is copied before it is damaged; it goes with the process."""
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    make_bank(place / "bank")
    make_run(place / "run")
    return {"bank": place / "bank", "run": place / "run"}


def _chosen(draw: np.random.Generator, files: list[Path]) -> Path:
    """A file that holds something, by its size."""
    sizes = np.array([path.stat().st_size for path in files], float)
    return files[draw.choice(len(files), p=sizes / sizes.sum())]


def _flip(draw: np.random.Generator, files: list[Path]) -> None:
    path = _chosen(draw, files)
    content = bytearray(path.read_bytes())
    bit = int(draw.integers(8 * len(content)))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def _any(draw: np.random.Generator, files: list[Path]) -> Path:
    held = [path for path in files if path.stat().st_size]
    return held[draw.integers(len(held))]


def _cut(draw: np.random.Generator, files: list[Path]) -> None:
    path = _any(draw, files)
    content = path.read_bytes()
    path.write_bytes(content[: draw.integers(len(content))])


def _empty(draw: np.random.Generator, files: list[Path]) -> None:
    _any(draw, files).write_bytes(b"")


def _remove(draw: np.random.Generator, files: list[Path]) -> None:
    _any(draw, files).unlink()


def _swap(draw: np.random.Generator, files: list[Path]) -> None:
    one, other = _any(draw, files), _any(draw, files)
    contents = one.read_bytes(), other.read_bytes()
    one.write_bytes(contents[1])
    other.write_bytes(contents[0])
