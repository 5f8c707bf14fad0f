"""What faults are injected into: the tests' tiny network, a bank of three tasks of it, and a saved training."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tasks import tiny
from xbm_jax.banks import MaskBank, load_chip, save_chip
from xbm_jax.errors import XbmError
from xbm_jax.storage import store
from xbm_jax.storage.trees import digest
from xbm_jax.tasks import Task

METHODS = {"a": "xbm", "b": "norm_only-full", "c": "xbm_levels"}

Counts = Counter[str]
"""How many trials ended how: ``named`` error, ``whole`` (no effect, or what was there before), ``silent`` (something
else than was stored, without a word), ``bare`` (an exception of another kind), ``hung``."""


def chip() -> Any:
    """The chip of all trials."""
    return tiny.chip("adc")


def task(seed: int, method: str = "xbm", on: Any = None) -> Task:
    """A task with random values, told from others by its digest."""
    return tiny.made_up_task(chip() if on is None else on, tiny.METHODS[method], seed=seed)


def stored_values(seeds: Iterable[int]) -> dict[str, str]:
    """What a bank gives of the tasks of seeds, by what they call themselves."""
    with tempfile.TemporaryDirectory() as place:
        bank, found = MaskBank.create(place, chip()), {}
        for seed in seeds:
            bank.put("t", task(seed))
            found[bank.get("t").meta["task"]] = value_of(bank.get("t"))
        return found


def make_bank(folder: Path) -> None:
    """A bank of three tasks, one of them replaced once, and its chip."""
    save_chip(chip(), folder / "chip")
    bank = MaskBank.create(folder, chip())
    bank.put("a", task(9))
    for seed, (name, method) in enumerate(METHODS.items()):
        bank.put(name, task(seed, method))


def make_run(folder: Path) -> None:
    """A training of two epochs, saved after each."""
    from xbm_jax.training import Recipe, adapt

    config = Recipe(epochs=2, batch_size=32)
    adapt(chip(), tiny.stripes(), method=tiny.METHODS["xbm"], key=jax.random.key(0), config=config, save=folder)


def value_of(task: Task) -> str:
    """Digest of all that a task is."""
    return digest((task.trained, task.state)) + str(sorted(task.meta.items(), key=str)) + str(task.method)


def bank_values(folder: Path) -> dict[str, Any]:
    """What a reader gets of the chip and of each task: a digest, or the error."""
    found: dict[str, Any] = {}
    try:
        found["chip"] = digest(load_chip(folder / "chip", tiny.network()))
    except Exception as error:
        found["chip"] = error
    try:
        bank = MaskBank.open(folder, chip())
    except Exception as error:
        return found | dict.fromkeys(METHODS, error)
    for name in METHODS:
        try:
            found[name] = value_of(bank.get(name))
        except Exception as error:
            found[name] = error
    return found


def run_values(folder: Path) -> dict[str, Any]:
    """What is read of a saved run: every generation of its state by number, and the lines of its log."""
    from xbm_jax.training import read_log

    found: dict[str, Any] = {}
    for number in (1, 2, 3):
        try:
            arrays, described = store.load(folder / "state", form=1, generation=number)
            found[str(number)] = digest(arrays) + str(described)
        except Exception as error:
            found[str(number)] = error
    try:
        lines = read_log(folder)
    except Exception as error:
        return found | {"log": error}
    return found | {f"log {i}": str(line) for i, line in enumerate(lines)}


def judged(got: dict[str, Any], wanted: dict[str, Any]) -> str:
    """How a trial ended, by its worst reading."""
    outcomes = set()
    for name, value in got.items():
        if isinstance(value, XbmError):
            outcomes.add("named")
        elif isinstance(value, Exception):
            outcomes.add("bare")
        elif name.startswith("log "):  # lines that are damaged are left out, with a warning
            outcomes.add("whole" if value in wanted.values() else "silent")
        else:
            outcomes.add("whole" if value == wanted.get(name) else "silent")
    return next(kind for kind in ("silent", "bare", "named", "whole") if kind in outcomes)


def rng(seed: int) -> np.random.Generator:
    """Of a row of the table."""
    return np.random.default_rng(seed)
