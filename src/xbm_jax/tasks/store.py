"""Named arrays and JSON in a folder, by Orbax; the only module that knows Orbax.

A save writes a new generation ``<folder>/000001`` (Orbax renames it into place when it is whole) and only then removes
the older one, so that a killed save loses nothing. The SHA-256 of every array and of the metadata is kept beside it and
checked on loading: Orbax itself loads a flipped bit without a word.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.errors import BankError, OutputError

__all__ = ["exists", "load", "load_metadata", "save"]


def save(folder: str | Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write one generation, then remove what came before it."""
    from orbax.checkpoint import v1 as ocp

    folder = Path(folder).resolve()
    checked_directory(folder)
    older = [p for p in folder.iterdir() if p.is_dir()]
    generation = folder / f"{max([int(p.name) for p in _generations(folder)], default=0) + 1:06d}"
    described = {
        "metadata": metadata,
        "arrays": {n: {"sha256": _digest(a), "shape": list(a.shape), "dtype": str(a.dtype)} for n, a in arrays.items()},
    }
    text = json.dumps(described)
    # Orbax refuses empty arrays; their shape and type are all there is to keep.
    full = {name: np.asarray(array) for name, array in arrays.items() if array.size}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Orbax warns of its own deprecations and of missing multi-host settings.
        ocp.save(str(generation), full, custom_metadata={"json": text, "sha256": _sha256(text.encode())})
    for path in older:
        shutil.rmtree(path, ignore_errors=True)


def load(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and metadata of the newest generation.

    Raises:
        BankError: nothing there, unreadable, or an array that differs from what was saved; each is named.
    """
    from orbax.checkpoint import v1 as ocp

    generation = _newest(folder)
    described = _described(generation)
    wanted = described["arrays"]
    abstract = {n: np.empty(d["shape"], d["dtype"]) for n, d in wanted.items() if 0 not in d["shape"]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = ocp.load(str(generation), abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds; each means that the data cannot be read.
        raise BankError("folder", str(generation), f"a readable checkpoint ({_first_line(error)})") from error
    arrays = {n: np.asarray(loaded.get(n, np.empty(d["shape"], d["dtype"]))) for n, d in wanted.items()}
    damaged = [n for n, a in arrays.items() if _digest(a) != wanted[n]["sha256"]]
    if damaged:
        raise BankError("arrays", damaged, f"arrays as saved; those in {generation.name} were damaged on disk")
    return arrays, described["metadata"]


def load_metadata(folder: str | Path) -> dict[str, Any]:
    """The metadata of the newest generation, without reading its arrays."""
    return _described(_newest(folder))["metadata"]


def exists(folder: str | Path) -> bool:
    """Whether a whole generation is there."""
    return bool(_generations(Path(folder)))


def checked_directory(folder: Path) -> None:
    """Make ``folder`` and see that it can be written.

    Orbax takes brackets and wildcards in a path for a pattern and then finds nothing of what it wrote.
    """
    if any(character in str(folder.resolve()) for character in "[]*?"):
        raise OutputError("folder", str(folder), "a path without [ ] * ?")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError("folder", str(folder), f"a writable folder ({error.strerror})") from error


def _generations(folder: Path) -> list[Path]:
    """Whole generations, oldest first; Orbax's temporary folders carry a suffix."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and p.name.isdigit())


def _newest(folder: str | Path) -> Path:
    found = _generations(Path(folder).resolve())
    if not found:
        raise BankError("folder", str(folder), "a folder that was saved to")
    return found[-1]


def _described(generation: Path) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            custom: Any = ocp.metadata(str(generation)).custom_metadata
        if _sha256(custom["json"].encode()) != custom["sha256"]:
            raise ValueError("its description was damaged on disk")
        return json.loads(custom["json"])
    except Exception as error:  # as in load
        raise BankError("folder", str(generation), f"a readable checkpoint ({_first_line(error)})") from error


def _digest(array: np.ndarray) -> str:
    return _sha256(np.ascontiguousarray(array).tobytes())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
