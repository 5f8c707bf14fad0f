"""What a result was made with: configuration, versions, seed and device."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from xbm_jax.storage.plain import plain

__all__ = ["plain", "run_context"]

_PACKAGES = ("xbm_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def run_context(config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Plain JSON values: command, date (UTC), seed, device, CPU count, OS, versions, and ``config`` made plain.

    Nothing of the machine's user or folders comes in beyond what stands in ``config`` or was typed as an argument.
    """
    devices = jax.devices()
    return {
        "command": _command(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": int(seed),
        "device": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "cpus": _cpus(),
        "os": platform.platform(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "config": plain(config),
    }


def _command(argv: list[str]) -> str:
    """The command as typed; a notebook's kernel was given a file of the user's home, which nobody typed."""
    program = Path(argv[0]).name if argv else ""
    return program if program.startswith("ipykernel") else " ".join([program, *argv[1:]])


def _cpus() -> int:
    """CPUs that this process may use: in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
