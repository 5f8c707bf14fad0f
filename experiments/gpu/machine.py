"""Which machine this is; a run without an accelerator ends here, unless it is a toy."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import jax
from experiments.gpu.parts import Asked

from xbm_jax.report import run_context

__all__ = ["machine"]


def machine(asked: Asked) -> dict[str, Any]:
    """The card's name, versions of everything that moves a number, and what JAX's backend says of itself.

    Raises:
        RuntimeError: JAX has no accelerator here.
    """
    device = jax.devices()[0]
    if device.platform == "cpu" and not asked.toy:
        raise RuntimeError("JAX finds no accelerator: JAX for CUDA, a driver, or ARGS=--toy for a CPU")
    context = run_context({}, seed=0)
    found = {name: context[name] for name in ("date", "device", "cpus", "os", "versions")}
    names = (dist.metadata["Name"] for dist in metadata.distributions())
    plugins = sorted({name for name in names if name and name.lower().startswith(("jax-", "jax_", "nvidia-"))})
    found["plugins"] = {name: metadata.version(name) for name in plugins}
    return found | {"backend": device.client.platform_version, "memory": _memory(device)}


def _memory(device: Any) -> int | None:
    """Bytes that JAX may use, where the backend says."""
    return (device.memory_stats() or {}).get("bytes_limit")
