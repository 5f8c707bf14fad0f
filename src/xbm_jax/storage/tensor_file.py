"""Records in one ``.safetensors`` file: the other carrier.

    8 bytes       length n of the header, little-endian
    n bytes       JSON: {"__metadata__": {key: text}, "<record>/<array>": {"dtype", "shape", "data_offsets"}, ...}
    the rest      the arrays' bytes, one right behind the other

``__metadata__`` has for each record, and for each other text, a key with its envelope
(:mod:`xbm_jax.storage.record`) as JSON. What a header says is compared with the file's size before anything else is
read; header and file are read as bytes, so that nothing in them is ever run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.errors import BankError
from xbm_jax.storage.files import replace_file
from xbm_jax.storage.record import MAX_TEXT, Description, Record, cut, envelope, opened, parse_json

__all__ = ["TensorFile", "write_tensor_file"]

_NAMES = {"bool": "BOOL", "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "complex64": "C64"}
_NAMES |= {f"{kind}{bits}": f"{kind[0].upper()}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_TYPES = {name: dtype for dtype, name in _NAMES.items()}


def write_tensor_file(path: str | Path, records: Mapping[str, Record], texts: Mapping[str, str]) -> None:
    """Write records and further texts, by key, to a file that is there whole or not at all.

    Raises:
        BankError: an array of a type that such files lack. OutputError: the place cannot be written.
    """
    described = {**texts, **{key: record.text() for key, record in records.items()}}
    arrays = [(f"{key}/{name}", a) for key, record in records.items() for name, a in record.arrays.items()]
    arrays.sort(key=lambda item: -item[1].dtype.itemsize)  # so that each begins at a multiple of its items' size
    header: dict[str, Any] = {"__metadata__": {key: json.dumps(envelope(text)) for key, text in described.items()}}
    start = 0
    for name, array in arrays:
        if str(array.dtype) not in _NAMES:
            raise BankError(f"arrays[{name!r}].dtype", str(array.dtype), "one of " + ", ".join(_NAMES))
        places = [start, start := start + array.nbytes]
        header[name] = {"dtype": _NAMES[str(array.dtype)], "shape": list(array.shape), "data_offsets": places}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_TEXT:
        raise BankError("names", f"{len(records)} records", f"records that are described in {MAX_TEXT} bytes")

    def parts() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for _, array in arrays:
            yield np.ascontiguousarray(array).tobytes()

    replace_file(path, parts())


class TensorFile:
    """A file of :func:`write_tensor_file`, its header read and checked.

    Attributes:
        path: where it is.
        keys: of records and texts.

    Raises:
        BankError: no such file, or one that is damaged or lies about its size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                size = path.stat().st_size
                if length > min(MAX_TEXT, size - 8):
                    raise self._damaged(f"a header of {length} bytes in a file of {size}")
                header = parse_json("header", file.read(length))
        except OSError as error:
            raise BankError("file", str(path), f"a file that can be read ({error.strerror})") from error
        except BankError as error:
            raise error if error.field == "file" else self._damaged(str(error)) from error
        if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
            raise self._damaged("a header without __metadata__")
        self._texts = header.pop("__metadata__")
        self._arrays, self._start = header, 8 + length
        for name, array in header.items():
            self._check(name, array, size - self._start)
        if sum(array["data_offsets"][1] - array["data_offsets"][0] for array in header.values()) > size - self._start:
            raise self._damaged("arrays that lie over each other")

    @property
    def keys(self) -> list[str]:
        """Keys of records and texts, in the file's order."""
        return list(self._texts)

    def description(self, key: str, form: int) -> Description:
        """What is said under ``key``; ``form``: the newest that the caller reads."""
        if not isinstance(self._texts.get(key), str):
            raise BankError("file", str(self.path), f"a file with {key!r} in it")
        return opened(f"{self.path}: {key}", parse_json(key, self._texts[key]), form)

    def record(self, key: str, form: int) -> tuple[Record, Description]:
        """The record of ``key``, every array compared with its digest."""
        described, parts = self.description(key, form), []
        for name, wanted in described.arrays.items():
            found = self._arrays.get(f"{key}/{name}")
            if found is None:
                raise self._damaged(f"no array {key}/{name}")
            if (_TYPES[found["dtype"]], found["shape"]) != (wanted["dtype"], wanted["shape"]):
                raise self._damaged(f"{key}/{name} is {found['dtype']}{found['shape']}, not as its description says")
            begin, end = found["data_offsets"]
            parts.append(np.fromfile(self.path, np.uint8, end - begin, offset=self._start + begin))
        data = np.concatenate([np.zeros(0, np.uint8), *parts])
        return Record(cut(key, described, data), described.metadata, described.form), described

    def _check(self, name: str, array: Any, size: int) -> None:
        """Raise unless an array lies within the file and is as large as its shape."""
        try:
            begin, end = array["data_offsets"]
            count = math.prod(array["shape"]) * np.dtype(_TYPES[array["dtype"]]).itemsize
            whole = all(type(n) is int and n >= 0 for n in [begin, end, *array["shape"]])
            fine = whole and isinstance(array["shape"], list) and begin <= end <= size and end - begin == count
        except (KeyError, TypeError, ValueError):
            fine = False
        if not fine:
            raise self._damaged(f"{name!r} is {str(array)[:200]}, which is not in its {size} bytes of arrays")

    def _damaged(self, why: str) -> BankError:
        return BankError("file", str(self.path), f"a whole .safetensors file of records ({why})")
