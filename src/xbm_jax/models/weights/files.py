"""Weight files to arrays by name: ``.npz``, ``.safetensors`` or PyTorch's, on disk or on the Hugging Face hub."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xbm_jax.archives import DAMAGE, check_member, check_unpacked
from xbm_jax.errors import WeightsError
from xbm_jax.models.weights.torch_file import read_torch
from xbm_jax.paths import as_path

__all__ = ["HUB", "downloaded", "read_weights"]

HUB = "hf://"
_INDEX = ".index.json"
_SHARD = re.compile(r".*-(\d+)-of-(\d+)\.\w+")


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a weight file, by the names that it gives them.

    Args:
        path: a ``.npz``, a ``.safetensors`` or what ``torch.save`` wrote (``.pt``, ``.pth``, ``.pth.tar``, ``.th``,
            ``.ckpt``, ``.bin``), read without PyTorch; the index of several such files
            (``model.safetensors.index.json`` beside its shards); or ``hf://owner/repository/file``, which is
            downloaded once (needs ``huggingface-hub``); without a file it is ``model.safetensors``.
            What a file may unpack to is bounded, see :mod:`xbm_jax.archives`.

    Raises:
        WeightsError: the file is missing, of another kind, one shard of several, truncated or damaged, or cannot be
            downloaded.
    """
    name = str(path)
    if name.endswith(_INDEX):
        return _read_shards(name)
    shard = _SHARD.fullmatch(name)
    if shard and int(shard[2]) > 1:
        allowed = f"the whole: this is shard {int(shard[1])} of {int(shard[2])}; give the index of all, NAME{_INDEX}"
        raise WeightsError("weights", name, allowed)
    return _read_file(name)


def _read_file(name: str) -> dict[str, np.ndarray]:
    path = downloaded(name, "model.safetensors") if name.startswith(HUB) else as_path(name)
    ending = next((ending for ending in _READERS if path.name.lower().endswith(ending)), None)
    if ending is None:
        *most, last = _READERS
        raise WeightsError("weights", str(path), f"a {', '.join(most)} or {last} file, or an {_INDEX} of such")
    if not path.is_file():
        raise WeightsError("weights", str(path), "an existing file")
    try:
        return _READERS[ending](path)
    except DAMAGE as error:
        raise WeightsError("weights", str(path), f"a whole {ending} file ({error})") from error


def _read_shards(name: str) -> dict[str, np.ndarray]:
    """The arrays of all shards that an index names; each lies beside the index."""
    path = downloaded(name) if name.startswith(HUB) else as_path(name)
    if not path.is_file():
        raise WeightsError("weights", name, "an existing file")
    try:
        wanted = {str(array): str(file) for array, file in json.loads(path.read_text())["weight_map"].items()}
    except DAMAGE as error:
        raise WeightsError("weights", name, 'an index with a "weight_map" of names to files') from error
    folder, arrays = name[: len(name) - len(Path(name).name)], {}
    for file in sorted(set(wanted.values())):
        if Path(file).name != file:
            raise WeightsError("weights", file, "a file beside the index, without a folder")
        arrays |= _read_file(folder + file)
    missing = sorted(wanted.keys() - arrays.keys())
    if missing:
        raise WeightsError("weights", missing, f"arrays that the shards of {path.name} hold")
    return arrays


def downloaded(address: str, file: str = "") -> Path:
    """The local copy of ``hf://owner/repository/file``, or of ``hf://owner/repository@revision/file``.

    Args:
        file: what is meant where the address names a repository alone.

    Raises:
        WeightsError: another address, or a file that cannot be downloaded.
    """
    owner, _, rest = address.removeprefix(HUB).partition("/")
    named, _, given = rest.partition("/")
    file = given or file
    repository, _, revision = named.partition("@")
    if not (owner and repository and file):
        raise WeightsError("weights", address, "hf://owner/repository/file")
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        allowed = "a file on disk, or `pip install 'xbm_jax[hub]'` for files on the Hugging Face hub"
        raise WeightsError("weights", address, allowed) from error
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file, revision=revision or None))
    except Exception as error:  # the client's errors and those of the network library below it
        allowed = f"a file that can be downloaded, or one on disk ({type(error).__name__}: {error})"
        raise WeightsError("weights", address, allowed) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    # NumPy leaves a file that it opened itself open where the archive is damaged.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        check_unpacked(archive.zip, path.stat().st_size)
        for name in archive.files:
            check_member(archive.zip, name)
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
    **dict.fromkeys((".pt", ".pth", ".pth.tar", ".th", ".ckpt", ".bin"), read_torch),
}
