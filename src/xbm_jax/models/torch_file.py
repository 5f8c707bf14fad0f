"""State dicts that ``torch.save`` wrote, read without PyTorch and without running anything that the file says.

A checkpoint is a pickle that names storages by number, and the storages' bytes: a zip archive of both since PyTorch
1.6 (``archive/data.pkl``, ``archive/data/0``, ...), before that one after the other in one file. The unpickler here
knows ordered dicts, tensors and storages and refuses every other name, so that a file can give arrays and nothing else.
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
_WRAPPERS = ("state_dict", "model", "model_state_dict")


class _Tensor(NamedTuple):
    """A strided view into a storage, before the storage's bytes are known."""

    storage: str
    dtype: Any
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a state dict by name; also of one that stands in a checkpoint under ``state_dict`` or ``model``.

    Raises ValueError for a pickle that holds more than tensors, and what ``zipfile`` and ``pickle`` raise on damage.
    """
    with path.open("rb") as file:
        content, data = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    state = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), dict)), content)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise ValueError("no tensors: not a state dict")
    return {name: _array(tensor, data(tensor.storage)) for name, tensor in tensors.items()}


def _read_zip(file: Any) -> tuple[dict[str, Any], Callable[[str], bytes]]:
    archive = zipfile.ZipFile(file)
    names = {name.partition("/")[2]: name for name in archive.namelist()}
    if "data.pkl" not in names:
        raise ValueError("a zip archive without data.pkl: not written by torch.save")
    if "byteorder" in names and archive.read(names["byteorder"]) != b"little":
        raise ValueError("big-endian tensors")
    content = _unpickled(io.BytesIO(archive.read(names["data.pkl"])))
    wanted = {t.storage for t in _tensors(content)}
    storages = {key: archive.read(names[f"data/{key}"]) for key in wanted}
    return content, storages.__getitem__


def _read_legacy(file: Any) -> tuple[dict[str, Any], Callable[[str], bytes]]:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if _Plain(file).load() != _LEGACY_MAGIC:
        raise ValueError("not written by torch.save")
    _Plain(file).load()  # protocol version
    if not _Plain(file).load().get("little_endian", True):
        raise ValueError("big-endian tensors")
    content = _unpickled(file)
    itemsize = {t.storage: np.dtype(t.dtype).itemsize for t in _tensors(content)}
    storages = {}
    for key in _Plain(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        storages[key] = file.read(min(count * itemsize.get(key, 1), size))
    return content, storages.__getitem__


def _unpickled(file: Any) -> dict[str, Any]:
    content = _StateDict(file).load()
    if not isinstance(content, dict):
        raise ValueError(f"a {type(content).__name__}: not a state dict (save model.state_dict(), not the model)")
    return content


def _tensors(content: Any) -> list[_Tensor]:
    if isinstance(content, _Tensor):
        return [content]
    if isinstance(content, dict):
        return [tensor for value in content.values() for tensor in _tensors(value)]
    if isinstance(content, (list, tuple)):
        return [tensor for value in content for tensor in _tensors(value)]
    return []


def _array(tensor: _Tensor, data: bytes) -> np.ndarray:
    """The view's own copy, its last element checked to lie inside the storage."""
    flat = np.frombuffer(data, tensor.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    outside = min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or last >= len(flat)
    if 0 not in tensor.shape and (outside or math.prod(tensor.shape) > len(flat)):
        raise ValueError("a tensor beyond its storage: the file is cut off or damaged")
    bytes_per_step = [s * flat.itemsize for s in tensor.strides]
    return np.array(np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, bytes_per_step))


class _Plain(pickle.Unpickler):
    """Numbers, strings, lists and dicts; no class at all."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise ValueError(f"{module_name}.{global_name} in the file: only tensors are read")


class _StateDict(_Plain):
    """Also ordered dicts and tensors."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
            **{("torch", name): dtype for name, dtype in _DTYPES.items()},
        }
        found = known.get((module_name, global_name))
        return super().find_class(module_name, global_name) if found is None else found

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, *_ = pid
        if kind != "storage":
            raise ValueError(f"{kind!r} in the file: only tensors are read")
        return str(key), dtype


def _rebuild_tensor(storage: tuple[str, Any], offset: int, shape: tuple, strides: tuple, *_: Any) -> _Tensor:
    key, dtype = storage
    return _Tensor(key, dtype, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))
