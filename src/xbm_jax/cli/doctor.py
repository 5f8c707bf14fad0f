"""``xbm doctor``: what is installed and found here, and whether a read gives what its closed form says."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib import metadata

from xbm_jax.cli.console import Output, complain, say

__all__ = ["doctor_command", "extras", "self_test"]

_TOOLS = ("test", "notebooks")
"""Extras of those who work on the package itself."""

_NAMES = {"huggingface-hub": "huggingface_hub", "tensorboardx": "tensorboardX"}
_ACCELERATORS = {"cuda": "jax_cuda12_plugin", "cuda13": "jax_cuda13_plugin", "tpu": "libtpu"}
_TOLERANCE = 1e-5
"""Of the largest output: sums of 24 products in single precision."""


def doctor_command() -> int:
    """Print all of it; 1 where the self-test fails, which standard error says, else 0."""
    console = Output()
    for title, text in _surroundings():
        say(console, f"{title:18} {text}")
    for extra, packages in extras().items():
        there = all(_is_there(extra, package) for package in packages)
        how = "installed" if there else f"not installed: pip install 'xbm_jax[{extra}]'"
        say(console, f"{'extra ' + extra:18} {how}")
    try:
        say(console, f"{'self-test':18} {self_test()}")
    except AssertionError as error:
        complain(f"self-test: a read is not what its closed form says: {str(error).strip()}")
        return 1
    return 0


def extras() -> dict[str, list[str]]:
    """The packages of each optional extra for users, as the installed package declares them."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("xbm_jax") or []:
        name, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", marker)
        if extra and extra[1] not in _TOOLS:
            found.setdefault(extra[1], []).append(re.split(r"[\[<>=!~ ]", name.strip())[0])
    return found


def self_test() -> str:
    """Write a kernel onto ideal cells and read it: the product of the quantised kernel and inputs, and traced once.

    y = x_q W_q with 8-bit inputs and levels, whatever rows a tile has: ideal cells and converters lose nothing.

    Raises:
        AssertionError: the read differs, or compiles anew for the same shapes.
    """
    import chex
    import jax
    import jax.numpy as jnp
    import numpy as np

    from xbm_jax.crossbar import Adc, CrossbarSpec, plan, program, read

    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (24, 5)).astype(np.float32)
    kernel[0] = 127.0  # so that a level is one
    inputs = rng.integers(0, 256, (3, 24)).astype(np.float32)
    spec = CrossbarSpec(rows=16, adc=Adc(bits=None))
    tiles = program(jnp.asarray(kernel), plan(kernel, spec), jax.random.key(0), input_scale=1.0)
    once = jax.jit(chex.assert_max_traces(read, n=1))
    for x in (inputs, inputs[::-1].copy()):
        wanted = x.astype(np.float64) @ kernel.astype(np.float64)
        chex.assert_trees_all_close(
            once(tiles, x) / np.abs(wanted).max(), wanted / np.abs(wanted).max(), atol=_TOLERANCE
        )
    return "a read of 24 x 5 weights on 16 rows is their product, compiled once"


def _surroundings() -> list[tuple[str, str]]:
    """Versions, devices, and where compiled programs are kept, by title."""
    import jax

    from xbm_jax.cli.compiled import VARIABLE
    from xbm_jax.report import run_context

    kept = jax.config.values["jax_compilation_cache_dir"]  # ours, which every command sets, or the user's
    context = run_context({}, 0)
    versions, device = context["versions"], context["device"]
    return [
        *versions.items(),
        ("interpreter", sys.executable),
        ("system", context["os"]),
        ("devices", f"{device['count']} x {device['kind']} ({device['platform']}), {context['cpus']} CPUs"),
        (
            "compiled programs",
            f"kept in {kept}" if kept else f"not kept ({VARIABLE}, or no folder that can be written)",
        ),
    ]


def _is_there(extra: str, package: str) -> bool:
    module = _ACCELERATORS.get(extra) or _NAMES.get(package, package.replace("-", "_"))
    return importlib.util.find_spec(module) is not None
