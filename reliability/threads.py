"""Threads that ask one server while tasks come, are replaced and go."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import Counter

import numpy as np
import psutil

from reliability.small import Counts, chip, rng, task, tiny
from xbm_jax.banks import MaskBank
from xbm_jax.errors import XbmError
from xbm_jax.serving import Server, serve
from xbm_jax.tasks import predict

THREADS, TASKS, CAPACITY = 8, 12, 8


def served_while_tasks_change(seconds: float) -> tuple[Counts, dict[str, float]]:
    """Eight threads for so long; every answer is that of one of the versions that its task had.

    Returns:
        Counts of answers, and by how much resident memory grew in the second half, as a share.
    """
    with tempfile.TemporaryDirectory() as place:
        bank, images = MaskBank.create(place, chip()), tiny.stripes().x_test[:16]
        versions = {f"t{i}": [task(100 + i), task(200 + i)] for i in range(TASKS)}
        wanted = {name: [predict(chip(), each, images) for each in both] for name, both in versions.items()}
        for name, (first, _) in versions.items():
            bank.put(name, first, compact=False)
        server = serve(chip(), bank, capacity=CAPACITY, batch_size=16)
        found, until = Counter(), time.monotonic() + seconds
        workers = [
            threading.Thread(target=_ask, args=(server, images, wanted, found, until, i)) for i in range(THREADS)
        ]
        for worker in workers:
            worker.start()
        memory = _change(server, bank, versions, until)
        for worker in workers:
            worker.join()
    half = len(memory) // 2
    return found, {"grew": float(np.max(memory[half:]) / np.max(memory[:half]) - 1), "mib": memory[-1] / 2**20}


def _ask(server: Server, images: np.ndarray, wanted: dict, found: Counts, until: float, seed: int) -> None:
    """Ask for random images of random tasks until the time is up."""
    draw, names, own = rng(seed), sorted(wanted), Counter()
    while time.monotonic() < until:
        rows = draw.integers(len(images), size=int(draw.integers(1, 17)))
        several = [names[i] for i in draw.integers(len(names), size=len(rows))]
        asked = several if draw.random() < 0.5 else [several[0]] * len(rows)
        try:
            got = server.logits(images[rows], asked)
        except XbmError:
            own["named"] += 1  # a task that was just removed
            continue
        except Exception:
            own["bare"] += 1
            continue
        right = all(
            any(np.allclose(answer[: each.shape[1]], each[row], rtol=0, atol=1e-4) for each in wanted[name])
            for answer, row, name in zip(got, rows, asked, strict=True)
        )
        own["whole" if right else "silent"] += 1
    with _TOGETHER:
        found.update(own)


_TOGETHER = threading.Lock()


def _change(server: Server, bank: MaskBank, versions: dict, until: float) -> list[int]:
    """Replace, remove and add tasks until the time is up; resident memory, ten times a second."""
    draw, names, memory, process = rng(99), sorted(versions), [], psutil.Process()
    while time.monotonic() < until:
        name = names[draw.integers(len(names))]
        other = versions[name][int(draw.integers(2))]
        if draw.random() < 0.2:
            server.remove(name)
            server.add(name)
        else:
            bank.put(name, other, compact=False)
            server.replace(name)
        time.sleep(0.1)
        memory.append(process.memory_info().rss)
    return memory
