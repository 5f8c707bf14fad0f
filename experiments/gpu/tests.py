"""The package's own tests, with the accelerator as JAX's first device: what a CPU finds right has to be right there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from experiments.gpu.parts import Asked

__all__ = ["tests"]

_FILES = ("test_adc", "test_products", "test_draws", "test_read", "test_encodings", "test_mixed", "test_keys")
_TOY = ("test_draws",)
_ROOT = Path(__file__).resolve().parents[2]


def tests(asked: Asked) -> dict[str, Any]:
    """How many passed and failed, and which failed; what was not reached in time is not counted.

    Raises:
        RuntimeError: none ran.
    """
    platform = jax.devices()[0].platform
    log = (asked.out / "tests.txt").resolve()
    files = [f"tests/crossbar/{name}.py" for name in (_TOY if asked.toy else _FILES)]
    # Warnings of JAX releases that the project has not seen yet are no failures here.
    options = ["-v", "-W", "default", "-m", "not slow", "-p", "no:cacheprovider", "--color=no"]
    options += ["-n", "1" if asked.toy else str(min(8, os.cpu_count() or 1))]
    own = {"JAX_PLATFORMS": "cpu" if platform == "cpu" else "cuda,cpu" if platform == "gpu" else f"{platform},cpu"}
    with log.open("wb") as output:
        started = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *files],
            cwd=_ROOT,
            env=os.environ | own,
            stdout=output,
            stderr=output,
        )
        try:
            ended = started.wait(timeout=max(1.0, asked.seconds - 3.0)) in (0, 1)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
            ended = False
    found = re.findall(r"(PASSED|FAILED|ERROR|SKIPPED) +(?:\[ *\d+%\] +)?(tests/\S+)", log.read_text(errors="replace"))
    outcomes = {name: outcome for outcome, name in reversed(found)}
    if not outcomes:
        raise RuntimeError(log.read_text(errors="replace")[-1500:] or "no test ran")
    counts = Counter(outcome.lower() for outcome in outcomes.values())
    failed = sorted(name for name, outcome in outcomes.items() if outcome in ("FAILED", "ERROR"))
    return {"counts": dict(counts), "failed": failed, "all_reached": ended, "platforms": own["JAX_PLATFORMS"]}
