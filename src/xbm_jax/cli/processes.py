"""A command that several processes run as one: they share the devices, the first one prints and writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import Mesh

from xbm_jax.cli.options import Adapt
from xbm_jax.errors import DataError, SpecError
from xbm_jax.layout import mesh

__all__ = ["in_turn", "joined", "leads"]

_T = TypeVar("_T")


def joined(options: Adapt) -> Mesh | None:
    """The mesh that a command line asks for, once this process has joined the others; ``None``: one device.

    Raises:
        DataError: options that do not go together, or other processes that cannot be reached.
    """
    named = {"--coordinator": options.coordinator, "--processes": options.processes, "--process": options.process}
    missing = [name for name, value in named.items() if value is None]
    if len(missing) not in (0, len(named)):
        raise DataError(missing[0], None, f"a value: {', '.join(named)} are given together, or none of them")
    if options.distributed or not missing:
        _join(options)
    shared = options.distributed or not missing or options.devices == "all"
    if not shared:
        return None
    try:
        found = mesh()
        if options.batch_size % found.size:
            raise DataError("--batch-size", options.batch_size, f"a multiple of {found.size}, the number of devices")
        return found
    except SpecError as error:
        raise DataError("--devices", options.devices, str(error)) from error


def _join(options: Adapt) -> None:
    given = (options.coordinator, options.processes, options.process)
    try:
        jax.distributed.initialize(*given)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        allowed = "SLURM, a TPU pod, Kubernetes or MPI, or --coordinator HOST:PORT --processes N --process I"
        raise DataError("--distributed", reason, allowed) from error


def leads() -> bool:
    """Whether this is the first process, which prints and writes."""
    return jax.process_index() == 0


def in_turn(action: Callable[[], _T]) -> _T:
    """``action()``, in the first process before it is done in the others: they find what it wrote."""
    if jax.process_count() == 1:
        return action()
    from jax.experimental.multihost_utils import sync_global_devices

    if not leads():
        sync_global_devices("the first process is done")
    done = action()
    if leads():
        sync_global_devices("the first process is done")
    return done
