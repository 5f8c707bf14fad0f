"""What every test shares: eight CPU devices, repeatable property tests, the way to reference data outside the clone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

# Before JAX looks for devices. Processes that a test starts inherit both.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["MPLBACKEND"] = "Agg"
os.environ["XBM_COMPILE_CACHE"] = "off"  # commands in this process would set it for all tests
# Beside little optimisation (see the Makefile) the older form of fusions halves the compiler's time. XLA knows neither
# this flag for ever, nor a flag that it does not know: only the releases in which it was tried.
if os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") == "1" and metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()

import hypothesis
import jax
import numpy as np
import pytest

from cost import mark_sampled

jax.config.update("jax_num_cpu_devices", 8)  # raises where something has started JAX already

ROOT = Path(__file__).resolve().parents[1]

# The same examples in every run, and few, since each new shape is a compilation.
# `pytest --hypothesis-profile thorough` looks further.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=15)
hypothesis.settings.register_profile("thorough", deadline=None, database=None, max_examples=400, print_blob=True)
hypothesis.settings.load_profile("repeatable")


@pytest.hookimpl(tryfirst=True)  # before what chooses by markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mark_sampled(items)


@pytest.fixture(scope="session", autouse=True)
def whole_batches() -> Iterator[None]:
    """Reads of a whole batch at once: in pieces, as users' are on a CPU, every test compiles several times as much."""
    from xbm_jax.crossbar.reading import loops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "_CONCURRENT", 1)
        yield


_MAPPINGS = Path("/proc/self/maps")
_MOST_MAPPINGS = 30_000
"""Half of what Linux gives a process by default (``vm.max_map_count``, 65,530)."""


@pytest.fixture(scope="module", autouse=True)
def few_mappings() -> Iterator[None]:
    """Compiled programs are let go before they are too many: each holds mappings of memory, and XLA ends the process
    that gets no more of them."""
    yield
    if _MAPPINGS.is_file() and len(_MAPPINGS.read_bytes().splitlines()) > _MOST_MAPPINGS:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference data and oracles: ``$XBM_SHARED``, or ``shared`` beside the clone; skips without."""
    folder = Path(os.environ.get("XBM_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"reference data not here: no folder {folder} (set XBM_SHARED)")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Callable[[str], Path]:
    """``shared_data("cifar10")`` is the path of that data set; skips, naming the file, where it is missing."""
    return lambda name: _file(shared / "data", name)


@pytest.fixture(scope="session")
def oracle(shared: Path) -> Callable[[str], dict[str, np.ndarray]]:
    """``oracle("ir_drop")`` is that oracle's arrays by name; skips, naming the file, where it is missing."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(_file(shared / "oracles", name), allow_pickle=False) as arrays:
            return dict(arrays)

    return load


def _file(folder: Path, name: str) -> Path:
    path = folder / (name if Path(name).suffix else f"{name}.npz")
    if not path.is_file():
        pytest.skip(f"reference data not here: {path}")
    return path
