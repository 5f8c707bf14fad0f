"""Many trainings as SLURM jobs: one job a method and seed, through submitit.

Command:   pip install submitit
           python -m experiments.launch.sweep --task npz:/data/task.npz --out /shared/sweep --partition gpu
           python -m experiments.launch.sweep --task fashion_mnist --out runs/sweep --cluster local --epochs 1
Hardware:  one GPU a job (``--cluster local``: this machine, one process after another as submitit schedules them).
Writes:    <out>/<method>-<seed>, a bank each, and submitit's logs in <out>/logs. A job that is preempted is queued
           again and carries on within its training; a job whose task is in its bank ends at once.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro


@dataclass(frozen=True)
class Sweep:
    """Which trainings, and where they run.

    Args:
        task: as for ``xbm adapt``.
        out: folder for banks and logs, which all nodes see.
        methods: learned one a job.
        seeds: likewise.
        epochs: passes over the training images.
        cluster: "slurm", "local" or "debug" (in this process).
        partition: of SLURM.
        minutes: at most so many for a job.
    """

    task: str
    out: Path
    methods: tuple[str, ...] = ("norm_only", "xbm", "piggyback")
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 10
    cluster: str = "slurm"
    partition: str | None = None
    minutes: int = 240


@dataclass(frozen=True)
class Job:
    """One training; what submitit calls, and calls again after a preemption."""

    task: str
    bank: str
    method: str
    seed: int
    epochs: int

    def command(self) -> list[str]:
        """The command line."""
        named = {"--task": self.task, "--bank": self.bank, "--method": self.method, "--name": "task"}
        numbers = {"--seed": self.seed, "--epochs": self.epochs}
        return ["xbm", "adapt", *(text for pair in (named | numbers).items() for text in map(str, pair))]

    def __call__(self) -> int:
        from xbm_jax.banks import task_names

        bank = Path(self.bank)
        if (bank / "bank.json").exists() and "task" in task_names(bank):
            return 0
        return subprocess.run([sys.executable, "-m", "xbm_jax", *self.command()[1:]], check=True).returncode

    def checkpoint(self, *_: Any, **__: Any) -> Any:
        """What submitit queues again when a job is preempted: the same, which carries on."""
        import submitit

        return submitit.helpers.DelayedSubmission(dataclasses.replace(self))


def jobs(sweep: Sweep) -> list[Job]:
    """All trainings of a sweep."""
    return [
        Job(sweep.task, str(sweep.out / f"{method}-{seed}"), method, seed, sweep.epochs)
        for method in sweep.methods
        for seed in sweep.seeds
    ]


def main(sweep: Sweep) -> None:
    import submitit

    executor = submitit.AutoExecutor(folder=sweep.out / "logs", cluster=sweep.cluster)
    slurm = {"slurm_partition": sweep.partition} if sweep.partition else {}
    executor.update_parameters(timeout_min=sweep.minutes, gpus_per_node=int(sweep.cluster == "slurm"), **slurm)
    for job, running in [(job, executor.submit(job)) for job in jobs(sweep)]:
        print(f"{job.method} {job.seed}: {running.job_id}")


if __name__ == "__main__":
    main(tyro.cli(Sweep, description=__doc__))
