"""State dicts that ``torch.save`` wrote, read without PyTorch and without running anything that the file says.

A checkpoint is a pickle that names storages by number, and the storages' bytes: a zip archive of both since PyTorch
1.6 (``archive/data.pkl``, ``archive/data/0``, ...), before that one after the other in one file. The unpickler here
knows ordered dicts, tensors and storages. For every other name in the file it puts an inert object that holds nothing
and does nothing, so that a file can give arrays and nothing else.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from xbm_jax.archives import check_total, check_unpacked
from xbm_jax.errors import warn

__all__ = ["read_torch"]

_DTYPES: dict[str, Any] = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_AVERAGED = ("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema", "params_ema")
_SHOWN = 12


class _Tensor(NamedTuple):
    """A strided view into a storage, before the storage's bytes are known."""

    storage: str
    dtype: Any
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a state dict by name; also of one that stands in a training script's checkpoint.

    Taken are the plain weights, under ``state_dict``, ``model``, ``net`` or the like, also one below another; averaged
    ones (``state_dict_ema``, ``ema``) where there are no others. Beside others they are left, with a warning.

    Raises ValueError, with the names that were found, for a pickle without tensors where they are looked for, and what
    ``zipfile`` and ``pickle`` raise on damage.
    """
    with path.open("rb") as file:
        content, data = _read_zip(file, path) if zipfile.is_zipfile(file) else _read_legacy(file)
        tensors = _chosen(content, path)
        sizes = (math.prod(t.shape) * np.dtype(t.dtype).itemsize for t in tensors.values())
        check_total(sum(sizes), path.stat().st_size)
        return {name: _array(tensor, data(tensor.storage)) for name, tensor in tensors.items()}


def _chosen(content: dict[Any, Any], path: Path) -> dict[str, _Tensor]:
    """The tensors of the state dict that the checkpoint is or holds."""
    state, averaged, left = content, False, []
    while True:
        plain, mean = (next((k for k in keys if _holds_tensors(state.get(k))), None) for keys in (_PLAIN, _AVERAGED))
        if plain is None and (mean is None or any(isinstance(value, _Tensor) for value in state.values())):
            left += [] if mean is None else [mean]
            break
        left += [] if plain is None or mean is None else [mean]
        averaged, state = averaged or plain is None, state[plain or mean]
    tensors = {str(name): value for name, value in state.items() if isinstance(value, _Tensor)}
    unread = [f"{name} ({_kind(value)})" for name, value in state.items() if getattr(value, "is_tensor", False)]
    if unread:
        raise ValueError(f"tensors of a kind that is not read: {', '.join(unread[:_SHOWN])}")
    if not tensors:
        found = ", ".join(f"{name} ({_kind(value)})" for name, value in list(content.items())[:_SHOWN])
        raise ValueError(f"no tensors: not a state dict; found {found or 'nothing'}")
    if left and not averaged:
        warn(f"{path}: took the plain weights; averaged ones stand beside them: {left[0]}")
    return tensors


def _holds_tensors(value: Any, depth: int = 3) -> bool:
    if not isinstance(value, dict) or depth == 0:
        return False
    if any(isinstance(inner, _Tensor) for inner in value.values()):
        return True
    return any(_holds_tensors(value.get(key), depth - 1) for key in (*_PLAIN, *_AVERAGED))


def _kind(value: Any) -> str:
    if isinstance(value, _Inert):
        return value.of
    return f"dict of {len(value)}" if isinstance(value, dict) else type(value).__name__


def _read_zip(file: Any, path: Path) -> tuple[dict[Any, Any], Callable[[str], bytes]]:
    archive = zipfile.ZipFile(file)
    check_unpacked(archive, path.stat().st_size)
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("a zip archive without data.pkl: not written by torch.save")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise ValueError("big-endian tensors")
    content = _unpickled(_StateDict(io.BytesIO(archive.read(names["data.pkl"]))))
    storages: dict[str, bytes] = {}

    def data(key: str) -> bytes:
        if key not in storages:
            storages[key] = archive.read(names[f"data/{key}"])
        return storages[key]

    return content, data


def _read_legacy(file: Any) -> tuple[dict[Any, Any], Callable[[str], bytes]]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if _Plain(file).load() != _LEGACY_MAGIC:
        raise ValueError("not written by torch.save")
    _Plain(file).load()  # protocol version
    if not _Plain(file).load().get("little_endian", True):
        raise ValueError("big-endian tensors")
    unpickler = _StateDict(file)
    content = _unpickled(unpickler)
    storages = {}
    for key in _Plain(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        if key not in unpickler.itemsizes:
            raise ValueError("a storage of a kind that is not read, before others")
        storages[key] = file.read(min(count * unpickler.itemsizes[key], size))
    return content, storages.__getitem__


def _unpickled(unpickler: _StateDict) -> dict[Any, Any]:
    content = unpickler.load()
    if not isinstance(content, dict):
        raise ValueError(f"a {_kind(content)}: not a state dict (save model.state_dict(), not the model)")
    return content


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
    """The view's own copy, its last element checked to lie inside the storage."""
    flat = np.frombuffer(data, tensor.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    outside = min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or last >= len(flat)
    if 0 not in tensor.shape and (outside or math.prod(tensor.shape) > len(flat)):
        raise ValueError("a tensor beyond its storage: the file is cut off or damaged")
    bytes_per_step = [s * flat.itemsize for s in tensor.strides]
    return np.array(np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, bytes_per_step))


class _Plain(pickle._Unpickler):
    """Numbers, strings, lists and dicts; no class at all.

    Python's own unpickler, not the one in C: that one takes memory for whatever position of its memo a file names.
    """

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise ValueError(f"{module_name}.{global_name} in the file: only tensors are read")


class _Inert:
    """Stands for an object of a class that is not read: takes whatever a pickle does to it, keeps nothing."""

    of, is_tensor = "", False

    def __new__(cls, *_: Any, **__: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None:
        """As of a list."""

    def extend(self, values: Any) -> None:
        """As of a list."""

    def add(self, value: Any) -> None:
        """As of a set."""


class _StateDict(_Plain):
    """Also ordered dicts and tensors, and something inert for the rest.

    Attributes:
        itemsizes: bytes per element of every storage that was named, also of those that are not looked at.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.itemsizes: dict[str, int] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in _DTYPES.items()},
        }
        found = known.get((module_name, global_name))
        if found is not None:
            return found
        other = {"of": f"{module_name}.{global_name}", "is_tensor": global_name.startswith("_rebuild")}
        return type("_Other", (_Inert,), other)

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise ValueError(f"{kind!r} in the file: only tensors are read")
        if dtype in _DTYPES.values():
            self.itemsizes[str(key)] = np.dtype(dtype).itemsize
        return str(key), dtype


def _rebuild_tensor(storage: tuple[str, Any], offset: int, shape: tuple, strides: tuple, *_: Any) -> Any:
    key, dtype = storage
    if isinstance(dtype, type) and issubclass(dtype, _Inert):
        return type("_Other", (_Inert,), {"of": dtype.of, "is_tensor": True})()
    return _Tensor(key, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
