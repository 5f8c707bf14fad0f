"""Weight files to arrays by name: ``.npz``, ``.safetensors`` or PyTorch's, on disk or on the Hugging Face hub."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xbm_jax.errors import WeightsError
from xbm_jax.models.torch_file import read_torch

__all__ = ["read_weights"]

_HUB = "hf://"
# What zipfile, zlib, pickle, NumPy and safetensors raise on damaged bytes. NumPy: TypeError for a single array.
_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, pickle.UnpicklingError),
    *(NotImplementedError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError),
)


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a weight file, by the names that it gives them.

    Args:
        path: a ``.npz``, a ``.safetensors`` or what ``torch.save`` wrote (``.pt``, ``.pth``, ``.th``, ``.bin``), read
            without PyTorch; or ``hf://owner/repository/file``, which is downloaded once (needs ``huggingface-hub``).

    Raises:
        WeightsError: the file is missing, of another kind, truncated or damaged, or cannot be downloaded.
    """
    path = _downloaded(path) if isinstance(path, str) and path.startswith(_HUB) else Path(path)
    read = _READERS.get(path.suffix)
    if read is None:
        raise WeightsError("weights", str(path), "a .npz, .safetensors, .pt, .pth, .th or .bin file")
    if not path.is_file():
        raise WeightsError("weights", str(path), "an existing file")
    try:
        return read(path)
    except _DAMAGE as error:
        raise WeightsError("weights", str(path), f"a whole {path.suffix} file ({error})") from error


def _downloaded(address: str) -> Path:
    """The local copy of ``hf://owner/repository/file``."""
    owner, _, rest = address.removeprefix(_HUB).partition("/")
    repository, _, file = rest.partition("/")
    if not (owner and repository and file):
        raise WeightsError("weights", address, "hf://owner/repository/file")
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        allowed = "a file on disk, or `pip install 'xbm_jax[hub]'` for files on the Hugging Face hub"
        raise WeightsError("weights", address, allowed) from error
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except Exception as error:  # the client's errors and those of the network library below it
        allowed = f"a file that can be downloaded, or one on disk ({type(error).__name__}: {error})"
        raise WeightsError("weights", address, allowed) from error


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


_READERS: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    **dict.fromkeys((".pt", ".pth", ".th", ".bin"), read_torch),
}
