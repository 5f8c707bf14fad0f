"""A training that may be killed at any moment, and what it ends with.

As a script, ``killed.py FOLDER CASE DEVICES``, it learns with ``save=FOLDER`` and prints :func:`digest_of` its tasks.
The number of devices is that of the process to compare with: it decides in which form some reads are computed.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from tasks import tiny
from xbm_jax.data import Augment
from xbm_jax.layout import mesh
from xbm_jax.storage.trees import digest
from xbm_jax.tasks import Task
from xbm_jax.training import Recipe, Saves, adapt, adapt_together, read_log

EPOCHS = 3
RECIPE = Recipe(epochs=EPOCHS, batch_size=16)
STEPS = 17
"""Of an epoch."""

CASES = ("xbm", "xma2", "noisy", "augmented", "head_only", "together", "mesh")
TIMES = ("seconds", "images_per_second")


def learned(case: str, save: Any = None, report: Any = None, epochs: int = EPOCHS) -> list[Task]:
    """The tasks of a case: always the same ones."""
    config, data, key = dataclasses.replace(RECIPE, epochs=epochs), tiny.stripes(), jax.random.key(1)
    chip = tiny.chip("noisy" if case == "noisy" else "ideal")
    if case == "together":
        other = dataclasses.replace(data, name="turned", y_train=(data.y_train + 1) % 4, y_test=(data.y_test + 1) % 4)
        keys = list(jax.random.split(key))
        options = {"method": tiny.METHODS["xbm"], "keys": keys, "config": config, "report": report, "save": save}
        return adapt_together(chip, [data, other], **options)
    if case == "augmented":
        config = dataclasses.replace(config, augment=Augment(size=10))
    method = tiny.METHODS[case if case in tiny.METHODS else "xbm"]
    shared = mesh() if case == "mesh" else None
    return [adapt(chip, data, method=method, key=key, config=config, report=report, save=save, mesh=shared)]


def digest_of(tasks: Sequence[Task]) -> str:
    """Of every bit of the tasks, and of what was measured of them but for times."""
    metas = [{name: value for name, value in task.meta.items() if name not in TIMES} for task in tasks]
    bits = digest([(task.trained, jax.tree.map(np.asarray, task.state)) for task in tasks])
    return f"{bits} {json.dumps(metas, sort_keys=True)}"


def started(folder: Path, case: str) -> subprocess.Popen[str]:
    """A process that learns a case, once it is about to take its next step."""
    before = _begun(folder)
    command = [sys.executable, __file__, str(folder), case, str(jax.device_count())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and _begun(folder) == before:
        time.sleep(0.005)
    return process


def killed(folder: Path, case: str, seconds: float) -> bool:
    """Learn a case in a process that is killed so long after it began its first step; whether it was not done yet."""
    with started(folder, case) as process:
        time.sleep(seconds)
        process.kill()
        _, errors = process.communicate()
    if process.returncode > 0:
        raise RuntimeError(errors)
    return process.returncode != 0


def _begun(folder: Path) -> int:
    try:
        return sum(row["kind"] == "begin" for row in read_log(folder))
    except ValueError:
        return 0


if __name__ == "__main__":
    place, name, devices = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    print(digest_of(learned(name, Saves(place, every_seconds=0.0))))
