"""What a cost costs: ResNet-50 with a task of column masks, by one technology and by a thousand."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

import xbm_jax as xbm
from benchmarks.layers import spec
from benchmarks.networks import random_backbone
from benchmarks.timing import timed
from xbm_jax.hardware import CostReport, Technology, Workload, cost, load_technology, workload
from xbm_jax.models import initial_trained
from xbm_jax.tasks import Task, compact

__all__ = ["first_cost", "ten_costs", "thousand_technologies"]


def ten_costs(rounds: int = 15) -> list[float]:
    """Seconds of ten, in so many rounds."""
    call = _call()
    call()
    return [timed(lambda: [call() for _ in range(10)]) for _ in range(rounds)]


def first_cost(rounds: int = 5) -> list[float]:
    """The first call, so many times; the workload has been counted."""
    call, times = _call(), []
    for _ in range(rounds):
        jax.clear_caches()
        times.append(timed(call))
    return times


def thousand_technologies() -> list[float]:
    """Whole reports by ISAAC with all of its constants from half of to twice what they are, compiled before."""
    chip, task, load = _resnet50()
    isaac, factors = load_technology("isaac-32nm"), np.geomspace(0.5, 2.0, 1000)
    kept = ("adc_bits", "dac_bits", "columns_per_adc")
    many = {n: jnp.asarray(v * (1 + 0 * factors if n in kept else factors)) for n, v in isaac.constants.items()}

    def of(technology: Technology) -> CostReport:
        return cost(chip, task, technology, load)

    compiled = jax.jit(jax.vmap(of))
    _, *later = (timed(lambda: compiled(isaac.replace(constants=many))) for _ in range(12))
    return later


@cache
def _resnet50() -> tuple[xbm.Chip, Task, Workload]:
    """Random weights on 128 x 128 arrays, and a task as a bank keeps it; images of 224 pixels."""
    chip = xbm.program(random_backbone("resnet50-v1"), spec(128, 8, cols=128), jax.random.key(0))
    method = xbm.methods.xbm()
    task = Task(initial_trained(chip, method, 10, jax.random.key(1)), chip.stats, method)
    return chip, compact(chip, task), workload(chip, jax.ShapeDtypeStruct((1, 224, 224, 3), np.uint8))


def _call() -> Callable[[], CostReport]:
    chip, task, load = _resnet50()
    technology = load_technology("isaac-32nm")
    return lambda: cost(chip, task, technology, load)
