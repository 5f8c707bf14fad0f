"""What serving costs beside one task's ``predict``: eight tasks in a batch, one of them alone, memory, a cold start."""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import xbm_jax as xbm
from benchmarks.networks import RESNET20, random_backbone
from benchmarks.timing import Work
from xbm_jax.models import initial_trained
from xbm_jax.tasks import compact

__all__ = ["cold_start", "mixed_batch", "resident_memory", "single_task", "switching"]

TASKS = 8


class Served(NamedTuple):
    """A server of eight tasks, one of them by itself, and a batch."""

    server: xbm.Server
    task: xbm.Task
    images: np.ndarray


def mixed_batch(**network: Any) -> tuple[Work, Work]:
    """A batch in which every image's neighbours are other tasks', to ``predict`` of one task."""
    served = _served(**network)
    names = [f"t{i % TASKS}" for i in range(len(served.images))]
    return lambda: served.server.logits(served.images, names), _predict(served)


def single_task(**network: Any) -> tuple[Work, Work]:
    """A server's batch of one task, to ``predict``."""
    served = _served(**network)
    return lambda: served.server.logits(served.images, "t0"), _predict(served)


def switching(calls: int = 60, rounds: int = 5) -> list[float]:
    """What going from task to task adds to answering one image: the seconds of a thousand times, round by round."""
    served = _served()
    image = served.images[:1]
    turns = itertools.cycle([f"t{i}" for i in range(TASKS)])
    for name in itertools.islice(turns, 2 * TASKS):
        served.server(image, name)

    def one(name: str) -> float:
        start = time.perf_counter()
        served.server(image, name)
        return time.perf_counter() - start

    def added() -> float:
        other, same = zip(*((one(next(turns)), one("t0")) for _ in range(calls)), strict=True)
        return max(0.0, 1e3 * (statistics.median(other) - statistics.median(same)))

    return [added() for _ in range(rounds)]


def resident_memory(tasks: int = 100, **network: Any) -> dict[str, float]:
    """What so many tasks take in memory beside the chip, to their gains, norms and heads in float32."""
    served = _served(**network)
    server = xbm.serve(served.server.chip, served.server.bank, ["t0"], capacity=tasks + 1)
    before = _live_bytes()
    for i in range(tasks):
        server.add(f"more{i}", served.task)
    taken, chip = _live_bytes() - before, served.server.chip
    gains = sum(tiles.plan.row_tiles * tiles.plan.columns for tiles in chip.tiles.values())
    pairs = sum(array.size for pair in chip.norms.values() for array in pair.values())
    values = tasks * 4 * (gains + pairs + (chip.num_features + 1) * served.task.outputs)
    return {"ratio": taken / values, "mib": taken / 2**20}


def cold_start(rounds: int = 5) -> list[float]:
    """Seconds from the start of ``xbm predict`` to its end, for one image of ResNet-20, once all is compiled."""
    served = _served()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        xbm.save_chip(served.server.chip, root / "bank" / "chip")
        xbm.MaskBank.create(root / "bank", served.server.chip).put("t0", served.task)
        Image.fromarray(served.images[0]).save(root / "image.png")
        names = ("--bank", root / "bank", "--task", "t0", root / "image.png")
        command = [sys.executable, "-c", "from xbm_jax.cli import main; main()", "predict", *map(str, names)]
        own = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        environment = own | {"XBM_COMPILE_CACHE": str(root / "compiled")}
        times = []
        for _ in range(1 + rounds):
            start = time.perf_counter()
            subprocess.run(command, env=environment, check=True, capture_output=True)
            times.append(time.perf_counter() - start)
    return times[1:]


def _predict(served: Served) -> Work:
    chip, task, images = served.server.chip, served.task, served.images
    return lambda: xbm.predict(chip, task, images, batch_size=len(images))


@cache
def _served(model: str = RESNET20, pixels: int = 32, batch: int = 64) -> Served:
    """64 rows, 8-bit converters, 1 % programming error; tasks of ten classes with half of their columns off."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch, pixels, pixels, 3), np.uint8)
    backbone = xbm.load_backbone(model) if model == RESNET20 else random_backbone(model)
    chip = xbm.program(backbone, xbm.spec_by_name("verified"), jax.random.key(0))
    chip = chip if chip.calibrated else xbm.calibrate(chip, images[:16])
    tasks = {f"t{i}": _task(chip, rng) for i in range(TASKS)}
    bank = xbm.MaskBank.create(tempfile.mkdtemp(prefix="xbm-serving-"), chip)
    for name, task in tasks.items():
        bank.put(name, task)
    return Served(xbm.serve(chip, bank, batch_size=batch), bank.get("t0"), images)


def _task(chip: xbm.Chip, rng: np.random.Generator) -> xbm.Task:
    method = xbm.methods.xbm()
    trained = initial_trained(chip, method, 10, jax.random.key(1))
    masks = {path: jnp.asarray(rng.normal(size=a.shape), a.dtype) for path, a in trained["masks"].items()}
    return compact(chip, xbm.Task({**trained, "masks": masks}, chip.stats, method))


def _live_bytes() -> int:
    return sum(array.nbytes for array in jax.live_arrays())
