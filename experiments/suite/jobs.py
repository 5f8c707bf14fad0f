"""The grids of the comparisons, and who does their jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
from experiments.resume import adapt_together
from experiments.suite import bad_chips as suite_bad_chips
from experiments.suite import forgetting as suite_forgetting
from experiments.suite.chips import BAD
from experiments.suite.parts import Job, chip_for, data_of, learn, row_of

from xbm_jax.masks import Filter, Masked, Method, methods

SMALL = ("fashion_mnist", "gtsrb43_32px", "quickdraw100", "notmnist", "usps", "omniglot8")
LARGE = ("cub40_112px", "cars40_112px", "flowers102_64px", "pacs_art_painting_112px", "pacs_sketch_112px")
ACTIVE = (16, 32, 64)
"""Word lines read at once in arrays of 128."""

ROWS = (16, 32, 64, 128, 256, 512)
OWN_ROWS: Mapping[str, Callable[[Any, Job], list[dict[str, Any]]]] = {
    "chip_in_the_loop": suite_bad_chips.rows,
    "forgetting": suite_forgetting.rows,
}
"""Comparisons whose jobs learn more than one task each."""


@dataclass(frozen=True)
class Grid:
    """The axes of a comparison.

    Args:
        holds: which of their combinations are part of it.
        rates: learning rates of norms and head of all methods, where the backbones need others than the methods' own.
        mask_rate: factor on the methods' mask rates, but for those that follow from the number of steps.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    chips: tuple[str, ...] = ("verified",)
    backbones: tuple[str, ...] = ("cifar-resnet20",)
    holds: Callable[[Job], bool] = lambda job: True
    rates: Mapping[str, float] = field(default_factory=dict)
    mask_rate: float = 1.0

    def tuned(self, method: Method) -> Method:
        """A method with the comparison's rates."""
        factor = 1.0 if method.mask_lr_steps else self.mask_rate
        return replace(method, mask_lr=factor * method.mask_lr, **self.rates)


ALL = tuple(methods.METHODS)
FROZEN = "xbm, norms frozen"
"""Masks and head alone."""

GRIDS: Mapping[str, Grid] = {
    "small_suite": Grid(
        SMALL,
        (*ALL, FROZEN),
        ("verified", "relaxed", "ideal"),
        holds=lambda job: job.chip == "verified" or job.method in ("xbm", "piggyback", "finetune"),
    ),
    "large_suite": Grid(
        LARGE,
        ALL,
        backbones=("mobilenet-v2", "resnet50-v1"),
        # Many features, few images and so few steps: `experiments/estimators.py` on MobileNetV2.
        rates={"norm_lr": 1e-3, "head_lr": 1e-3},
        mask_rate=0.2,
    ),
    "bits_front": Grid(
        SMALL,
        (
            *(f"xbm rows {rows}" for rows in ROWS),
            *(f"xbm active {rows}" for rows in ACTIVE),
            "xbm_lines",
            *(f"xma bits {bits}" for bits in (2, 3, 4, 5)),
            *("filters", "ksm_binary", "ksm_soft", "piggyback", "norm_only"),
        ),
    ),
    "chip_in_the_loop": Grid((*SMALL, "cifar10"), ("xbm",), BAD),
    "forgetting": Grid(
        ("+".join(suite_forgetting.ORDER[:3]), "+".join(suite_forgetting.ORDER)),
        (suite_forgetting.ONE_NETWORK, "finetune", "piggyback", "xbm", "xma"),
    ),
}


def run(config: Any, jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Learn and measure jobs that differ in their seed alone; their rows. Several are learned together."""
    comparison = jobs[0].comparison
    if comparison in OWN_ROWS:
        return [row for job in jobs for row in OWN_ROWS[comparison](config, job)]
    method, arrays = method_of(jobs[0].method)
    method = GRIDS[comparison].tuned(method)
    chips, data = [chip_for(config, job, arrays) for job in jobs], [data_of(config, job) for job in jobs]
    began = time.perf_counter()
    if len(jobs) == 1:
        tasks = [learn(config, chips[0], data[0], method, jobs[0].seed)]
    else:
        keys = [jax.random.key(job.seed) for job in jobs]
        tasks = adapt_together(config.out, chips, data, method=method, keys=keys, config=config.training)
    seconds = (time.perf_counter() - began) / len(jobs)
    parts = zip(jobs, chips, tasks, data, strict=True)
    return [row_of(config, job, chip, task, images, seconds) for job, chip, task, images in parts]


def method_of(name: str) -> tuple[Method, dict[str, int]]:
    """A method of a grid, and what of its arrays is not the chip's own."""
    if name == FROZEN:
        return methods.xbm(norms="frozen"), {}
    kind, _, rest = name.partition(" ")
    if kind == "filters":
        xbm = methods.xbm()
        assert isinstance(xbm.rule, Masked)
        return replace(xbm, name="filters", rule=replace(xbm.rule, granularity=Filter())), {}
    if kind == "xbm" and rest:
        what, _, count = rest.partition(" ")
        return methods.xbm(), {"rows": int(count)} if what == "rows" else {"rows": 128, "active_rows": int(count)}
    if kind == "xma" and rest:
        return methods.xma(bits=int(rest.removeprefix("bits "))), {}
    return methods.by_name(name), {}
