"""A task while a command learns it: saved in ``<bank>/.runs/<name>`` until the bank has it; and its log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from xbm_jax.cli.options import Adapt
from xbm_jax.cli.processes import leads
from xbm_jax.errors import BankError, OutputError
from xbm_jax.report import profiled, to_tensorboard, to_wandb
from xbm_jax.storage.files import replace_file
from xbm_jax.training import forget
from xbm_jax.training.log import LOG

__all__ = ["carried_on", "kept_log", "outlets"]

_LOGS = "logs"


@contextmanager
def carried_on(bank: Path, name: str, remedy: str, restart: bool = False) -> Iterator[Path]:
    """The folder of a task's run, which goes once all within is done: put the task into the bank there.

    Args:
        remedy: what to do where another run is in it, as of other options, or a damaged one.
        restart: forget what is there.

    Raises:
        OutputError: another run, a damaged one or another process is there.
    """
    folder = bank / ".runs" / name
    if not leads():
        yield folder
        return
    if restart:
        forget(folder)
    try:
        yield folder
    except (OutputError, BankError) as error:
        if error.field != "save":
            raise
        other = isinstance(error, BankError) or error.allowed.startswith("a new folder")
        raise OutputError("--bank", str(bank), f"{remedy} ({error})" if other else str(error)) from error
    forget(folder)
    with suppress(OSError):  # raised where other runs are in it, or none was
        folder.parent.rmdir()


@contextmanager
def outlets(options: Adapt, name: str) -> Iterator[list[Any]]:
    """The reports, beside the bar, that a command line asks for."""
    with ExitStack() as closed:
        found = []
        if options.log == "tensorboard" and leads():
            found.append(closed.enter_context(to_tensorboard(options.bank / _LOGS / name)))
        if options.log == "wandb" and leads():
            found.append(closed.enter_context(to_wandb(project="xbm_jax", name=name)))
        if options.profile is not None:
            found.append(closed.enter_context(profiled(options.profile)))
        yield found


def kept_log(run: Path, bank: Path, name: str) -> None:
    """Keep a run's log where the run itself is forgotten."""
    replace_file(bank / _LOGS / f"{name}.jsonl", (run / LOG).read_bytes())
