"""The grid of comparisons: which jobs there are, which are done, and where their rows go."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import jax
from experiments.resume import read_records, write_records
from experiments.suite import chips as suite_chips
from experiments.suite import jobs as suite_jobs
from experiments.suite import pages as suite_report
from experiments.suite.parts import Job
from rich.console import Console

import xbm_jax as xbm
from xbm_jax import report
from xbm_jax.masks import methods

Comparison = Literal["small_suite", "large_suite", "bits_front", "chip_in_the_loop", "forgetting"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Options.

    Args:
        data: folder with the tasks' .npz files.
        only: comparisons to run.
        out: folder for JSON files, tables and figures.
        tasks: tasks of the grid, by file name; all of a comparison's own if none are named.
        methods: methods of the grid, likewise.
        chips: chips of the grid, likewise.
        backbones: backbones of the grid, likewise.
        seeds: each is a chip, a choice of images and a training of its own.
        images: training images of a task, validation images among them.
        epochs: passes over them.
        batch_size: images per step.
        together: learn the seeds of a job in one vmapped step, one after another otherwise. Where it is not said:
            together on a GPU or TPU.
    """

    data: Path
    only: tuple[Comparison, ...] = get_args(Comparison)
    out: Path = Path("experiments/results")
    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    chips: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    images: int = 2500
    epochs: int = 8
    batch_size: int = 32
    together: bool | None = None

    def __post_init__(self) -> None:
        if not self.data.is_dir():
            raise xbm.DataError("--data", str(self.data), "a folder with the tasks' .npz files")
        if not self.seeds:
            raise xbm.DataError("--seeds", self.seeds, "at least one")
        for name in ("tasks", "methods", "chips", "backbones"):
            allowed = {value for only in self.only for value in getattr(suite_jobs.GRIDS[only], name)}
            unknown = sorted(set(getattr(self, name)) - allowed)
            if unknown:
                raise xbm.DataError(f"--{name}", ", ".join(unknown), "some of " + ", ".join(sorted(allowed)))

    @property
    def training(self) -> xbm.Recipe:
        """Settings of the training loop."""
        return xbm.Recipe(epochs=self.epochs, batch_size=self.batch_size)

    def kept(self, comparison: Comparison) -> dict[str, Any]:
        """What has to be the same for finished jobs of a comparison to count."""
        grid = suite_jobs.GRIDS[comparison]
        recipes = {name: repr(grid.tuned(make())) for name, make in methods.METHODS.items()}
        return {"images": self.images, "training": self.training, "chips": suite_chips.CHIPS, "methods": recipes}

    def file(self, comparison: Comparison) -> Path:
        """Where the rows of a comparison are."""
        return self.out / f"{comparison}.json"

    def jobs(self, comparison: Comparison) -> Iterator[Job]:
        """The chosen part of a comparison's grid."""
        grid = suite_jobs.GRIDS[comparison]
        names = ("backbones", "tasks", "chips", "methods")
        axes = [[v for v in getattr(grid, n) if v in getattr(self, n) or not getattr(self, n)] for n in names]
        for seed, *place in itertools.product(self.seeds, *axes):
            job = Job(comparison, *place, seed)
            if grid.holds(job):
                yield job

    def groups(self, comparison: Comparison) -> list[list[Job]]:
        """The jobs as they are done: those that differ in their seed alone together, or each by itself."""
        together = jax.default_backend() != "cpu" if self.together is None else self.together
        groups: dict[Any, list[Job]] = {}
        for job in self.jobs(comparison):
            groups.setdefault(dataclasses.replace(job, seed=0) if together else job, []).append(job)
        return list(groups.values())


def main(config: Config) -> None:
    """Resume, learn what is missing, write; comparison by comparison."""
    console = Console()
    for comparison in config.only:
        rows = read_records(config.file(comparison), config.kept(comparison), "rows")
        keep(config, comparison, rows)  # a folder that cannot be written shows before the work, not after it
        task = ""
        for jobs in config.groups(comparison):
            if jobs[0].task != task:
                jax.clear_caches()  # programs of other shapes: they would add up to gigabytes
                task = jobs[0].task
            missing = [job for job in jobs if not any(row["job"] == job.name for row in rows)]
            if missing:
                rows += suite_jobs.run(config, missing)
                keep(config, comparison, rows)
            names = [job.name for job in jobs]
            for row in rows:
                if row["job"] in names:
                    console.print(
                        f"{row['job']:60} {row['method']:24} {row['accuracy']:6.1%}", highlight=False, soft_wrap=True
                    )
        suite_report.write(config.out, comparison, rows)


def keep(config: Config, comparison: Comparison, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace the comparison's file, a row a line; every command that added to it is kept.

    With no row more it stays as it is: its date, versions and device are those that its rows were made with.
    """
    path, context = config.file(comparison), report.run_context(config.kept(comparison), config.seeds[0])
    earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if earlier.get("rows") == rows:
        context = earlier["context"]
    else:
        commands = earlier["context"]["commands"] if earlier else []
        context["commands"] = list(dict.fromkeys([*commands, context.pop("command")]))
    write_records(path, context, rows, "rows")
