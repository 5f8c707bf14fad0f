"""Weight files: ``.npz`` or ``.safetensors`` to arrays by path, in this project's names or PyTorch's."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xbm_jax.errors import WeightsError

__all__ = ["from_torch_names", "read_weights"]

# What zipfile, zlib, NumPy and safetensors raise on damaged bytes; TypeError: NumPy found a single array, no archive.
_DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, KeyError, ValueError, TypeError)
_TORCH_LEAVES = {"running_mean": "mean", "running_var": "var", "bias": "bias"}


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a weight file, by name.

    Raises:
        WeightsError: the file is missing, of another kind, truncated or damaged.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise WeightsError("weights", str(path), "a .npz or .safetensors file")
    if not path.is_file():
        raise WeightsError("weights", str(path), "an existing file")
    try:
        return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
    except _DAMAGE as error:
        raise WeightsError("weights", str(path), f"a whole {path.suffix} file ({error})") from error


def from_torch_names(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """PyTorch's names and layouts to Flax's: ``layer1.0.conv1.weight`` OIHW to ``layer1_0/conv1/kernel`` HWIO.

    Arrays that already have our names pass unchanged. ``module.`` prefixes and ``num_batches_tracked`` are dropped.
    """
    if not any("." in name for name in arrays):
        return dict(arrays)
    renamed: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        parts = re.sub(r"^module\.", "", name).split(".")
        if parts[-1] == "num_batches_tracked":
            continue
        path = re.sub(r"(layer\d+)/(\d+)", r"\1_\2", "/".join(parts[:-1]))
        leaf, array = _leaf(parts[-1], np.asarray(value))
        renamed[f"{path}/{leaf}"] = array
    return renamed


def _leaf(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    if name != "weight":
        return _TORCH_LEAVES.get(name, name), value
    if value.ndim == 4:
        return "kernel", value.transpose(2, 3, 1, 0)
    return ("kernel", value.T) if value.ndim == 2 else ("scale", value)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # NumPy leaves a file that it opened itself open where the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
