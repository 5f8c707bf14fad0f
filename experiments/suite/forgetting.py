"""Tasks learned one after another on one network: what is left of the earlier ones, and of the source task.

After each task the accuracy on all tasks so far and on CIFAR-10 itself is measured, with the bits stored and the cells
written until then. `finetune one network` goes on from the last task's weights, norms and statistics, which thereby
change for all tasks; each keeps its own head. All others keep a copy (`finetune`), or masks, norms and a head, per
task: what they answer for an earlier task stays the same bit for bit.

Tasks are learned off the chip and written once: learning a task writes the cells whose level differs from what the chip
holds then (`written_so_far`); going back to a task writes those that differ from what it holds after the last one
(`cells_to_switch`). Column masks write none.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from experiments.suite.parts import Job, chip_for, data_of, learn, row_of

import xbm_jax as xbm
from xbm_jax.masks import methods

SOURCE = "cifar10"
ORDER = ("fashion_mnist", "gtsrb43_32px", "quickdraw100", "notmnist", "usps", "omniglot8")
ONE_NETWORK = "finetune one network"


def rows(config: Any, job: Job) -> list[dict[str, Any]]:
    """A row for each task learned and each task tested after it."""
    one, order = job.method == ONE_NETWORK, [name for name in ORDER if name in job.task.split("+")]
    method = methods.by_name("finetune" if one else job.method)
    chip = chip_for(config, dataclasses.replace(job, task=order[0]))
    source, own, last = xbm.source_task(chip), {}, None
    held, written, found = _levels(chip, xbm.source_task(chip)), 0, []
    for step, name in enumerate(order, 1):
        data, began = data_of(config, dataclasses.replace(job, task=name)), time.perf_counter()
        start = None if last is None or not one else last.replace(trained={**last.trained, "head": {}})
        last = own[name] = learn(config, chip, data, method, job.seed, start=start)
        seconds, levels = time.perf_counter() - began, _levels(chip, last)
        written, held = written + _differing(held, levels), levels
        shown = {SOURCE: source, **own}
        if one:
            shown = {tested: _on_network_of(last, task) for tested, task in shown.items()}
        facts = {"after": name, "step": step, "stored_bits": _stored(chip, own, one), "written_so_far": written}
        for tested, task in shown.items():
            place = dataclasses.replace(job, task=tested)
            row = row_of(config, place, chip, task, data_of(config, place), seconds)
            facts["cells_to_switch"] = _differing(_levels(chip, task), held)
            found.append(row | facts | {"job": job.name})
    return found


def _on_network_of(last: xbm.Task, task: xbm.Task) -> xbm.Task:
    """An earlier task on the network as the last one left it; its head is its own."""
    return last.replace(trained={**last.trained, "head": task.trained["head"]}, meta=task.meta)


def _levels(chip: xbm.Chip, task: xbm.Task) -> dict[str, np.ndarray]:
    """What every cell holds while the task is used."""
    rule, masks = task.method.rule, task.trained["masks"]
    if rule is None or not rule.rewrites_cells:
        return {path: np.asarray(tiles.levels) for path, tiles in chip.tiles.items()}
    return {path: np.asarray(rule.apply(tiles, masks[path])[0].levels) for path, tiles in chip.tiles.items()}


def _differing(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> int:
    return sum(int(np.sum(one[path] != other[path])) for path in one)


def _stored(chip: xbm.Chip, own: dict[str, xbm.Task], one: bool) -> int:
    """Bits kept for all tasks so far: everything of each, or one network and a head of each."""
    bits = [xbm.hardware.task_bits(chip, task) for task in own.values()]
    if not one:
        return sum(b.total for b in bits)
    return bits[-1].total - bits[-1].head_bits + sum(b.head_bits for b in bits)
