"""A record: named arrays and JSON, as one text and one run of bytes, whatever carries them.

The text is JSON and says all there is to know of the bytes; the bytes are the arrays, one right behind the other, each
row by row and little-endian:

    {"format": 4, "version": "0.1.0", "layout": 2, "metadata": {...},
     "arrays": {"masks": {"sha256": "...", "shape": [45808], "dtype": "uint8"}, ...}}

An array's place follows from the shapes and types of those before it. Sizes are compared with what is there before
memory is taken, and every array with its SHA-256 before it is given to anybody. The text travels in an envelope,
``{"json": text, "sha256": digest of the text}``. Layout 1, of earlier versions, left the arrays' bytes to Orbax.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xbm_jax.errors import BankError
from xbm_jax.storage.files import strict_json
from xbm_jax.storage.forms import check_form, stamp

__all__ = [
    "MAX_TEXT",
    "Description",
    "Record",
    "cut",
    "digest",
    "envelope",
    "is_undamaged",
    "opened",
    "parse_json",
    "read_json",
]

LAYOUT = 2
MAX_TEXT = 2**24
"""Bytes of JSON that are read at most: some thousand tasks; a list of as many small things takes half a GiB."""

_DIMENSIONS = 32

_DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bfloat16", "int4", "uint4"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz"),
)


@dataclass(frozen=True)
class Description:
    """What a record's text says.

    Attributes:
        form: number of the form of what is stored; what it means is the writer's.
        layout: 2, or 1 where Orbax keeps each array on its own.
        metadata: JSON-like.
        arrays: ``{"sha256", "shape", "dtype"}`` by name, in the order of the bytes.
        sha256: of the text.
    """

    form: int
    layout: int
    metadata: dict[str, Any]
    arrays: dict[str, dict[str, Any]]
    sha256: str

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together."""
        return sum(_nbytes(described) for described in self.arrays.values())


@dataclass(frozen=True)
class Record:
    """Named arrays and JSON-like metadata; ``form`` is the number of their form."""

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    form: int = 1

    def text(self) -> str:
        """The JSON text.

        Raises:
            BankError: metadata that JSON cannot hold, or an array of a type that has no form on disk.
        """
        for name, array in self.arrays.items():
            if str(array.dtype) not in _DTYPES or not array.dtype.isnative:
                allowed = "numbers of the machine's byte order, or bool"
                raise BankError(f"arrays[{name!r}].dtype", str(array.dtype), allowed)
        described = {
            name: {"sha256": digest(_bytes(a)), "shape": list(a.shape), "dtype": str(a.dtype)}
            for name, a in self.arrays.items()
        }
        stored = {**stamp(self.form), "layout": LAYOUT, "metadata": self.metadata, "arrays": described}
        return strict_json("metadata", stored, self.metadata)

    def data(self) -> np.ndarray:
        """The bytes of all arrays, uint8 [n]."""
        parts = [np.frombuffer(_bytes(array), np.uint8) for array in self.arrays.values()]
        return np.concatenate([np.zeros(0, np.uint8), *parts])


def envelope(text: str) -> dict[str, str]:
    """The text with its digest."""
    return {"json": text, "sha256": digest(text.encode())}


def opened(field: str, custom: Any, newest: int) -> Description:
    """What an envelope says; ``field`` names it in errors.

    Raises:
        BankError: it is damaged, of a newer form than ``newest``, or says what no record can be.
    """
    if not is_undamaged(custom):
        raise BankError(field, "damaged", "a readable checkpoint (its description was damaged on disk)")
    stored = parse_json(field, custom["json"])
    if not isinstance(stored, dict) or not isinstance(stored.get("metadata"), dict):
        raise BankError(field, type(stored).__name__, "a description with metadata and arrays")
    check_form(field, stored, newest)
    layout = stored.get("layout", 1)
    if layout not in (1, LAYOUT):
        raise BankError(f"{field}.layout", layout, f"1 to {LAYOUT}, what this version reads")
    arrays = stored.get("arrays")
    if not isinstance(arrays, dict):
        raise BankError(f"{field}.arrays", type(arrays).__name__, "a description of each array by name")
    for name, described in arrays.items():
        _check_described(f"{field}.arrays[{name!r}]", described)
    return Description(stored.get("format", 1), layout, stored["metadata"], arrays, custom["sha256"])


def is_undamaged(custom: Any) -> bool:
    """Whether an envelope's text is the one that was put into it."""
    try:
        return digest(custom["json"].encode()) == custom["sha256"]
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return False


def cut(field: str, description: Description, data: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays by name, each its own copy, from the bytes (uint8 [n]) of layout 2.

    Raises:
        BankError: too few or too many bytes, or arrays that differ from what was saved, all of them named.
    """
    if data.size != description.nbytes:
        raise BankError(field, f"{data.size} bytes", f"{description.nbytes} bytes, as its description says")
    arrays, damaged, start = {}, [], 0
    for name, described in description.arrays.items():
        part = data[start : (start := start + _nbytes(described))]
        if digest(part.tobytes()) != described["sha256"]:
            damaged.append(name)
        arrays[name] = np.frombuffer(bytearray(part), np.dtype(described["dtype"])).reshape(described["shape"])
    if damaged:
        raise BankError("arrays", damaged, f"arrays as saved; those in {field} were damaged on disk")
    return arrays


def parse_json(field: str, text: str | bytes) -> Any:
    """JSON, within :data:`MAX_TEXT` and whatever its depth.

    Raises:
        BankError: it is none, too long or too deep.
    """
    if len(text) > MAX_TEXT:
        raise BankError(field, f"{len(text)} bytes of JSON", f"at most {MAX_TEXT}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BankError(field, "damaged", f"JSON ({error})") from error


def read_json(field: str, path: Path) -> Any:
    """The JSON of a file, as :func:`parse_json`; OSError where it cannot be read."""
    with path.open("rb") as file:
        return parse_json(field, file.read(MAX_TEXT + 1))


def digest(data: bytes | memoryview) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def _check_described(field: str, described: Any) -> None:
    try:
        shape, dtype = described["shape"], described["dtype"]
        fine = dtype in _DTYPES and isinstance(shape, list) and len(shape) <= _DIMENSIONS
        fine = fine and all(type(n) is int and 0 <= n < 2**48 for n in shape) and isinstance(described["sha256"], str)
    except (KeyError, TypeError):
        fine = False
    if not fine:
        raise BankError(field, described, "sha256, a shape of whole numbers and a dtype, one of " + ", ".join(_DTYPES))


def _nbytes(described: dict[str, Any]) -> int:
    return math.prod(described["shape"]) * np.dtype(described["dtype"]).itemsize


def _bytes(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()
